"""Tests of the documents on metrics: the table, the dashboard, the alert rules."""

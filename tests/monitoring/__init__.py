"""Tests of what is told to operators: the table of metrics, the dashboard, the alerts."""

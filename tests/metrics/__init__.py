"""Tests of what is counted and told."""

"""Metrics: what an operator can count and watch, over all workers and their deaths."""

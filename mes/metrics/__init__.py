"""Metrics for Prometheus, of all workers together; they survive the death of a worker."""

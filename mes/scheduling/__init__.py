"""Scheduling: what the workers must agree on, namely who may use which model when."""

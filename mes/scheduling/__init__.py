"""Scheduling: the state that the workers share, and the permits to use models."""

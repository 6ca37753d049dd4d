"""MES, the Model Execution Service: an HTTP service in front of self-hosted language models."""

__version__ = "0.2.0"

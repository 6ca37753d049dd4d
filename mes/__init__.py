"""MES, the Model Execution Service: one door to the open models a team runs itself."""

__version__ = "0.2.0"

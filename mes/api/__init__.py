"""The HTTP API. Views declare their parts, call a use case and serialize its result."""

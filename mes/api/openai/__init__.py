"""Endpoints for clients of OpenAI's API, over the same use cases."""

"""The doors that OpenAI's clients know, over the same use cases."""

"""The doors of the interface that OpenAI's clients speak."""

"""Configuration: settings, catalog of models and API keys, from environment and files."""

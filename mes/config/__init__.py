"""Configuration: the settings, the catalog of models and the API keys."""

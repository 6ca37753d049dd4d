"""A program that speaks Ollama's wire contract and counts what its client does to it."""

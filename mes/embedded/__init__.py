"""A small runtime that serves Ollama's HTTP API over llama.cpp, installed from one wheel."""

"""A small runtime that speaks Ollama's HTTP API over llama.cpp, out of one wheel."""

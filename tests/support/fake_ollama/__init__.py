"""A fake of Ollama: a program with its HTTP API, with counters and faults for tests."""

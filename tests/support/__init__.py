"""Support for tests: the fake runtime, and programs that run as child processes."""

"""What the tests lean on: a runtime to talk to, and the service as a process."""

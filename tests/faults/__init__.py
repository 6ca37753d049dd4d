"""All faults that the service has to survive, provoked one by one and in random order."""

"""The command line for operators: `mes`."""

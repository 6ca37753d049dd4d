"""`python -m mes`: the command line."""

from mes.cli.main import mes

mes(prog_name="mes")

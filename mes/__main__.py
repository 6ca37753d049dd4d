"""Run the command line with `python -m mes`."""

from mes.cli.main import mes

mes(prog_name="mes")

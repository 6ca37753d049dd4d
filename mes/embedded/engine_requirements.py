"""Requirements of the engine on the machine it runs on, and messages for the missing ones."""

from __future__ import annotations

import ctypes
import importlib.metadata
import importlib.util
from functools import cache
from pathlib import Path

# The engine is compiled for these without a check at run time: it dies of SIGILL without them.
INSTRUCTIONS = ("avx2", "fma", "f16c", "bmi2")


@cache
def engine_version() -> str:
    try:
        return importlib.metadata.version("xllamacpp")
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def missing_requirements() -> list[str]:
    """Return a message for each missing requirement; with one missing, no model can be loaded."""
    found = (_missing_engine(), _missing_library(), _missing_instructions())
    return [message for message in found if message]


def _missing_engine() -> str:
    if importlib.util.find_spec("xllamacpp"):
        return ""
    return (
        "the package xllamacpp is not installed: run pip install -e '.[embedded]' in MES's folder"
    )


def _missing_library() -> str:
    try:
        ctypes.CDLL("libgomp.so.1")
    except OSError:
        return "the system library libgomp.so.1 is missing: run apt-get install libgomp1"
    return ""


def _missing_instructions(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    try:
        text = cpuinfo.read_text()
    except OSError:
        return ""
    flags = next((line for line in text.splitlines() if line.startswith("flags")), "")
    missing = [name for name in INSTRUCTIONS if flags and name not in flags.split()]
    if not missing:
        return ""
    return f"the processor lacks {', '.join(missing)}, which the engine xllamacpp requires"

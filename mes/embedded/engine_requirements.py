"""What the engine needs of the machine it runs on, told in words where it is missing."""

from __future__ import annotations

import ctypes
import importlib.metadata
import importlib.util
from functools import cache
from pathlib import Path

# Compiled into the engine without a look at the processor: it dies of SIGILL without them.
INSTRUCTIONS = ("avx2", "fma", "f16c", "bmi2")


@cache
def engine_version() -> str:
    try:
        return importlib.metadata.version("xllamacpp")
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def missing_requirements() -> list[str]:
    """One sentence for each thing without which no model can be loaded"""
    found = (_missing_engine(), _missing_library(), _missing_instructions())
    return [sentence for sentence in found if sentence]


def _missing_engine() -> str:
    if importlib.util.find_spec("xllamacpp"):
        return ""
    return "the engine is not installed: pip install -e '.[embedded]' in the folder of MES"


def _missing_library() -> str:
    try:
        ctypes.CDLL("libgomp.so.1")
    except OSError:
        return "the system library libgomp.so.1 is missing: apt-get install libgomp1"
    return ""


def _missing_instructions(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    try:
        text = cpuinfo.read_text()
    except OSError:
        return ""
    flags = next((line for line in text.splitlines() if line.startswith("flags")), "")
    lacking = [name for name in INSTRUCTIONS if flags and name not in flags.split()]
    return f"the processor lacks {', '.join(lacking)}, which the engine needs" if lacking else ""

"""Programs that use client libraries, each run in the environment of its group.

A group is a folder `tests/clients/<group>` with a `requirements.txt` or `package.json`, whose
libraries `make test` or `make clients` installs into `.venv/clients-<group>`. The programs beside
that file read the address of the service from the environment, as the libraries do, and print one
JSON document at the end.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.support.process import ROOT

_HERE = Path(__file__).parent
_VARIABLES = ("PATH", "LANG", "LD_LIBRARY_PATH")


def python_of(group: str) -> str:
    """Return the Python of a group's environment. Skip the test if it is not installed."""
    return _installed(ROOT / f".venv/clients-{group}/bin/python")


def node_modules_of(group: str) -> str:
    """Return the folder of a group's Node packages. Skip the test if it is not installed."""
    return _installed(ROOT / f".venv/clients-{group}/node_modules")


def run_program(
    group: str, name: str, *, url: str, key: str, home: Path
) -> subprocess.CompletedProcess[str]:
    """Run a program of a group against the service at `url`.

    Args:
        name: The file in `tests/clients/<group>`.
        home: An empty folder: the working folder and the home of the program.
    """
    program = _HERE / group / name
    node_modules = "" if program.suffix == ".py" else node_modules_of(group)
    return subprocess.run(
        ["node" if node_modules else python_of(group), str(program)],
        env={**_environment(url=url, key=key, home=home), "NODE_PATH": node_modules},
        cwd=home,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def _environment(*, url: str, key: str, home: Path) -> dict[str, str]:
    inherited = {name: os.environ[name] for name in _VARIABLES if name in os.environ}
    return {
        **inherited,
        "HOME": str(home),
        "OPENAI_BASE_URL": f"{url}/v1",
        "OPENAI_API_KEY": key,
        "PYTHONPATH": str(_HERE / "common"),
        "MODEL_FILE": str(ROOT / "models/smollm2--135m.gguf"),
        # Model hubs are not asked, and nothing is reported to the authors of a library.
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_OFFLINE": "1",
        "DO_NOT_TRACK": "1",
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "PYTHONWARNINGS": "ignore",
    }


def _installed(path: Path) -> str:
    if not path.exists():
        pytest.skip(f"needs {path}: run `make test` or `make clients`")
    return str(path)

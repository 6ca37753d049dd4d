"""Test of the wheel: built, installed into a folder, and served from an empty one."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mes.config.settings import settings_table
from tests.support import process
from tests.support.process import ROOT, free_port, wait_until

PIP = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the installed package; its dependencies are those of the tests."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    # A build leaves files behind, which the next one would put into its wheel.
    shutil.copytree(ROOT / "mes", source / "mes", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.cfg", "pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, source)
    wheel = [*PIP, "wheel", "--no-deps", "--wheel-dir", str(folder), str(source)]
    subprocess.run(wheel, check=True, capture_output=True)
    (built,) = folder.glob("openbench_mes-*.whl")
    target = folder / "installed"
    install = [*PIP, "install", "--no-deps", "--target", str(target), str(built)]
    subprocess.run(install, check=True, capture_output=True)
    return target


@pytest.mark.slow
def test_an_installed_package_serves_a_model_from_an_empty_folder(installed, tmp_path):
    folder, output = tmp_path / "empty", tmp_path / "output"
    folder.mkdir()
    env = {
        **os.environ,
        **{name: "" for name, _, _ in settings_table()},
        "PATH": f"{installed / 'bin'}:{os.environ['PATH']}",
        "PYTHONPATH": str(installed),
        "PORT": str(free_port()),
        "MES_URL": "",
        "EMBEDDED_MODELS_DIR": str(ROOT / "models"),
        "EMBEDDED_THREADS": "1",
    }
    up = process.start(["mes", "up"], env=env, output=output, folder=folder)
    wait_until(lambda: "Try:" in output.read_text() or up.poll() is not None, seconds=120)
    words = ["mes", "run", "smollm2:135m", "What is the capital of France?"]
    answer = subprocess.run(words, env=env, cwd=folder, capture_output=True, text=True)
    assert "Paris" in answer.stdout, output.read_text() + answer.stderr
    assert process.stop(up, patience_seconds=20) == 0
    assert (folder / "config" / "models.embedded.json").is_file()
    assert (folder / "logs" / "mes.log").is_file()

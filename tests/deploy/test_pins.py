"""Tests of the pinned images and libraries: how they are renewed, and that they are safe."""

from __future__ import annotations

import configparser
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from tests.support.process import ROOT

SCRIPT = ROOT / "deploy" / "image_digests.py"
DIGEST = "sha256:" + 64 * "a"
PINNED = re.compile(r"([\w.-]+)==(\S+)( ; [^#]+?)?( +--hash=sha256:[0-9a-f]{64})+")
# The first version of each library without a known vulnerability.
ADVISORIES = {
    "click": ("8.3.3", "CVE-2026-7246"),
    "flask": ("3.1.3", "CVE-2026-27205"),
    "flask-httpauth": ("4.8.1", "CVE-2026-34531"),
    "idna": ("3.15", "CVE-2026-45409"),
    "jinja2": ("3.1.6", "CVE-2025-27516"),
    "marshmallow": ("4.1.2", "CVE-2025-68480"),
    "orjson": ("3.11.6", "CVE-2025-67221"),
    "pygments": ("2.20", "CVE-2026-4539"),
    "python-dotenv": ("1.2.2", "CVE-2026-28684"),
    "requests": ("2.33", "CVE-2026-25645"),
    "setuptools": ("83", "CVE-2026-59890"),
    "urllib3": ("2.7", "CVE-2026-44432"),
    "werkzeug": ("3.1.6", "CVE-2026-27199"),
}


def required() -> list[Requirement]:
    """Return the requirements of an installation without extras."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    lines = config["options"]["install_requires"].split("\n")
    return [Requirement(line) for line in lines if line and not line.startswith("#")]


def required_to_build() -> list[Requirement]:
    system = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]
    return [Requirement(line) for line in system["requires"]]


def pinned(name: str) -> dict[str, str]:
    """Return the versions in a file of requirements; each must have hashes."""
    text = (ROOT / "deploy" / name).read_text().replace("\\\n", " ")
    versions = {}
    for line in filter(None, text.splitlines()):
        if not line.lstrip().startswith("#"):
            found = re.fullmatch(
                r"([\w.-]+)==(\S+)( ; [^#]+?)?( +--hash=sha256:[0-9a-f]{64})+", line
            )
            assert found, line
            versions[found[1]] = found[2]
    return versions


@pytest.mark.parametrize("name", ADVISORIES)
def test_no_library_with_a_known_vulnerability_is_accepted(name):
    safe, advisory = ADVISORIES[name]
    [library] = [each for each in required() + required_to_build() if each.name == name]
    [lowest] = [each.version for each in library.specifier if each.operator == ">="]
    assert Version(lowest) >= Version(safe)
    assert advisory in (ROOT / "setup.cfg").read_text() + (ROOT / "pyproject.toml").read_text()


def test_the_image_has_each_required_library_in_an_accepted_version():
    versions = pinned("requirements.txt")
    for library in required():
        assert library.specifier.contains(versions[library.name]), library.name


def test_the_image_is_built_with_an_accepted_version():
    versions = pinned("requirements-build.txt")
    for library in required_to_build():
        assert library.specifier.contains(versions[library.name]), library.name


def test_the_image_installs_nothing_without_a_hash():
    text = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")
    installs = re.findall(r"pip (?:--python \S+ )?(?:install|wheel) (.*?)(?: &&|$)", text, re.M)
    assert len(installs) == 4
    for arguments in installs:
        assert "--require-hashes" in arguments or "--no-index" in arguments, arguments


def renew(folder: Path, answer: str) -> subprocess.CompletedProcess[str]:
    """Run the script with a docker that prints `answer`."""
    docker = folder / "docker"
    docker.write_text(f'#!/bin/sh\necho "$@" >> {folder}/asked\n{answer}\n')
    docker.chmod(0o755)
    files = [str(folder / name) for name in ("Dockerfile", "docker-compose.yml")]
    return subprocess.run(
        [sys.executable, str(SCRIPT), *files],
        env={"PATH": f"{folder}:/usr/bin:/bin"},
        capture_output=True,
        text=True,
    )


@pytest.fixture
def copies(tmp_path):
    for name in ("Dockerfile", "docker-compose.yml"):
        (tmp_path / name).write_text((ROOT / name).read_text())
    return tmp_path


def test_digests_are_renewed_by_one_command(copies):
    done = renew(copies, f"echo {DIGEST}")
    assert done.returncode == 0, done.stderr
    text = (copies / "Dockerfile").read_text() + (copies / "docker-compose.yml").read_text()
    # nginx and Ollama once each, the base of the two stages twice.
    assert text.count(f"@{DIGEST}") == 4
    assert len(re.findall("sha256:", text)) == 4
    tags = [line.split()[3] for line in (copies / "asked").read_text().splitlines()]
    kinds = ["nginx", "ollama/ollama", "python"]
    assert sorted(tag.partition(":")[0] for tag in tags) == kinds
    # Only the digests have changed.
    for name in ("Dockerfile", "docker-compose.yml"):
        old, new = ((folder / name).read_text() for folder in (ROOT, copies))
        assert re.sub(r"@sha256:\w+", "", new) == re.sub(r"@sha256:\w+", "", old)


@pytest.mark.parametrize("answer", ["exit 1", "echo latest"])
def test_without_a_digest_nothing_is_changed(copies, answer):
    done = renew(copies, answer)
    assert done.returncode == 1
    assert "prints no digest; nothing was changed" in done.stderr
    for name in ("Dockerfile", "docker-compose.yml"):
        assert (copies / name).read_text() == (ROOT / name).read_text()

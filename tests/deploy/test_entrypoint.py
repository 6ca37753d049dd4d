"""Tests of the image's entrypoint: it creates the keys that are missing, and starts the command."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import pytest

from mes.config.api_keys_admin import create_key
from mes.config.settings import load
from tests.support.compose import environment_of_mes
from tests.support.process import ROOT

ENTRYPOINT = ROOT / "deploy" / "docker-entrypoint.sh"


class Container:
    """The folders of the image: /app with a link to the key, and the volume."""

    def __init__(self, folder: Path) -> None:
        self.app, self.volume = folder / "app", folder / "volume"
        self.app.mkdir()
        self.volume.mkdir()
        (self.app / ".env").symlink_to(self.volume / "env")
        self.keys_file = self.volume / "keys.json"

    def environment(self, **dotenv: str) -> dict[str, str]:
        """Return what Compose sets; `dotenv` is the content of the `.env` beside it."""
        environ = environment_of_mes(**dotenv)
        assert environ["MES_API_KEYS_FILE"] == "/var/lib/mes/keys.json"
        return {**environ, "MES_API_KEYS_FILE": str(self.keys_file), "PATH": os.environ["PATH"]}

    def start(self, *command: str, **dotenv: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["sh", str(ENTRYPOINT), *command],
            cwd=self.app,
            env=self.environment(**dotenv),
            capture_output=True,
            text=True,
        )

    def settings(self, **dotenv: str):
        """Return the settings of a service in the container, or of the command `mes`."""
        return load(self.environment(**dotenv), dotenv=str(self.app / ".env"))


@pytest.fixture
def container(tmp_path: Path) -> Container:
    return Container(tmp_path)


def test_the_first_start_creates_a_key_with_which_mes_starts(container):
    started = container.start("echo", "served")
    assert (started.returncode, started.stdout) == (0, "served\n")
    assert "created an API key; docker compose exec mes cat .env prints it" in started.stderr
    settings = container.settings()
    assert re.fullmatch("[0-9a-f]{48}", settings.api_key)
    assert settings.api_key not in started.stderr
    assert settings.host == "0.0.0.0"
    for name in ("env", "keys.json"):
        assert (container.volume / name).stat().st_mode & 0o777 == 0o600


def test_later_starts_keep_the_key(container):
    container.start("true")
    key = container.settings().api_key
    assert container.start("true").stderr == ""
    assert container.settings().api_key == key


def test_each_container_has_a_key_of_its_own(container, tmp_path):
    (tmp_path / "other").mkdir()
    other = Container(tmp_path / "other")
    container.start("true")
    other.start("true")
    assert container.settings().api_key != other.settings().api_key


def test_no_key_is_created_where_one_is_set(container):
    assert container.start("true", MES_API_KEY="own").stderr == ""
    assert not (container.volume / "env").exists()
    assert container.settings(MES_API_KEY="own").api_key == "own"


def test_an_empty_key_counts_as_not_set(container):
    shown = container.start("sh", "-c", "echo ${MES_API_KEY-unset}", MES_API_KEY="")
    assert shown.stdout == "unset\n"
    assert (container.volume / "env").exists()


def test_a_mounted_env_file_is_used_as_it_is(container):
    (container.app / ".env").unlink()
    (container.app / ".env").write_text("MES_API_KEY=mounted\n")
    assert container.start("true").stderr == ""
    assert container.settings().api_key == "mounted"


def test_an_operator_can_do_without_the_first_key(container):
    (container.volume / "env").write_text("")
    container.start("true")
    assert (container.volume / "env").read_text() == ""
    assert container.settings().api_key is None


def test_more_keys_are_created_in_the_running_container(container):
    container.start("true")
    assert json.loads(container.keys_file.read_text()) == {"keys": []}
    create_key(container.keys_file, name="bench", scopes=["inference"])
    container.start("true")
    [entry] = json.loads(container.keys_file.read_text())["keys"]
    assert entry["name"] == "bench"


def test_a_folder_that_cannot_be_written_is_named_with_its_remedy(container):
    # Also root cannot create a file in a folder that does not exist.
    container.volume.rmdir()
    refused = container.start("echo", "served")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert f"cannot create {container.volume}/env; make this user the owner of" in refused.stderr

"""A state directory that another user can change: it is refused, and no link is followed."""

from __future__ import annotations

import os
import shutil

import pytest

from tests.integration.helpers import asked
from tests.support.process import wait_until
from tests.support.service import Service

MODEL = "mistral:7b"


def as_another_users(directory):
    """Make the directory as another user can, and return the cause that is expected."""
    if os.geteuid() != 0:
        pytest.skip("only root may give files away")
    os.chown(directory, 65534, 65534)
    return "belongs to the user nobody, and MES runs as root; remove it as nobody or root"


def open_to_all(directory):
    directory.chmod(0o1777)
    return f"other users can write to {directory} (mode 1777); chmod 700 {directory}"


def with_a_link(directory):
    (directory / "instance.lock").symlink_to(directory.parent / "precious")
    return f"{directory}/instance.lock is a symbolic link; remove it"


def as_a_link(directory):
    directory.rename(directory.parent / "elsewhere")
    directory.symlink_to(directory.parent / "elsewhere")
    return f"{directory} is a symbolic link; remove it"


@pytest.mark.parametrize("plant", [as_another_users, open_to_all, with_a_link, as_a_link])
def test_a_directory_that_another_user_can_change_is_refused(runtime, tmp_path, plant):
    """Start with a directory that another user has made before, at the known name."""
    (tmp_path / "precious").write_text("keep me")
    (tmp_path / "state").mkdir(mode=0o700)
    cause = plant(tmp_path / "state")
    options = {"ollama_url": runtime.url, "wait_healthy": False, "STATE_DIR": tmp_path / "state"}
    with Service(tmp_path, **options) as refused:
        assert refused.wait(30) != 0
        assert f"STATE_DIR {tmp_path}/state cannot be used: " in refused.text()
        assert cause in refused.text()
        assert "set STATE_DIR to another folder" in refused.text()
        assert "Traceback" not in refused.text()
    assert (tmp_path / "precious").read_text() == "keep me"
    assert not list((tmp_path / "state").glob("*.json"))


def test_a_directory_that_another_user_takes_over_while_mes_runs_is_named(runtime, tmp_path):
    with Service(tmp_path, ollama_url=runtime.url) as running:
        running.wait_until_ready()
        shutil.rmtree(running.state_dir)
        running.state_dir.symlink_to(tmp_path / "theirs")
        (tmp_path / "theirs").mkdir()
        wait_until(lambda: "symbolic link" in running.get("/ready").json()["state"])
        assert asked(running, MODEL).status == 200
        assert os.listdir(tmp_path / "theirs") == []
        running.state_dir.unlink()
        running.wait_until_ready()

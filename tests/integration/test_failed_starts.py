"""Workers that cannot start: the others serve, and the next start is made as soon as it can be."""

from __future__ import annotations

import shutil

import pytest

from tests.integration.helpers import asked, living
from tests.support.process import wait_until
from tests.support.service import Service, catalog

MODEL = "mistral:7b"
MODELS = {MODEL: {"max_concurrent": 2, "max_queue": 60, "timeout": 600}}


@pytest.fixture
def editable(runtime, tmp_path):
    """Start a service whose catalog and keys a test may break."""
    keys = tmp_path / "keys.json"
    keys.write_text('{"keys": []}')
    keys.chmod(0o600)
    options = {"ollama_url": runtime.url, "models": MODELS, "MES_API_KEYS_FILE": keys}
    with Service(tmp_path, **options) as running:
        running.wait_until_ready()
        wait_until(lambda: len(living(running)) == 4)
        yield running


def last_good_copies(running):
    return sorted(path.name for path in running.state_dir.glob("[ck]*.json") if path.stat().st_size)


def test_the_last_good_copies_are_written_anew_for_workers_after_a_broken_edit(editable, tmp_path):
    shutil.rmtree(editable.state_dir)
    wait_until(lambda: last_good_copies(editable) == ["catalog.json", "keys.json"])
    editable.models_path.write_text("{")
    (tmp_path / "keys.json").write_text("{")
    for victim in editable.worker_pids():
        editable.kill_worker(victim)
        wait_until(lambda pid=victim: pid not in editable.worker_pids())
    wait_until(lambda: len(living(editable)) == 4)
    assert {asked(editable, MODEL).status for _ in range(20)} == {200}
    assert editable.log_lines("worker_not_started") == []


def test_a_worker_that_cannot_start_ends_no_other_and_starts_later(editable):
    shutil.rmtree(editable.state_dir)
    editable.state_dir.touch()  # no copy can be written any more
    editable.models_path.write_text("{")
    editable.kill_worker(editable.worker_pids()[0])
    failed = wait_until(lambda: editable.log_lines("worker_not_started"))
    assert f"{editable.models_path}: /: is not JSON" in failed[0]["problem"]
    assert {asked(editable, MODEL).status for _ in range(20)} == {200}
    catalog(editable.models_path, **MODELS)
    editable.state_dir.unlink()
    wait_until(lambda: len(living(editable)) == 4)
    editable.wait_until_ready()


def test_a_stop_does_not_wait_for_a_worker_that_cannot_start(editable):
    shutil.rmtree(editable.state_dir)
    editable.state_dir.touch()
    editable.models_path.write_text("{")
    for victim in editable.worker_pids():
        editable.kill_worker(victim)
    wait_until(lambda: len(editable.log_lines("worker_not_started")) >= 4)
    assert editable.stop() == 0


FAILING_FORK = """
import os
real = os.fork
def fork():
    if os.path.exists(os.environ["PYTHONPATH"] + "/no-fork"):
        raise BlockingIOError(11, "Resource temporarily unavailable")
    return real()
os.fork = fork
"""


def test_a_fork_that_fails_ends_no_worker_and_is_tried_again(runtime, tmp_path):
    (tmp_path / "sitecustomize.py").write_text(FAILING_FORK)
    options = {"ollama_url": runtime.url, "models": MODELS, "PYTHONPATH": tmp_path}
    with Service(tmp_path, **options) as running:
        wait_until(lambda: len(living(running)) == 4)
        (tmp_path / "no-fork").touch()
        running.kill_worker(running.worker_pids()[0])
        failed = wait_until(lambda: running.log_lines("worker_not_started"))
        assert "Resource temporarily unavailable" in failed[0]["problem"]
        assert asked(running, MODEL).status == 200
        (tmp_path / "no-fork").unlink()
        wait_until(lambda: len(living(running)) == 4)

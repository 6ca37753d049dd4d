"""The keys file in a running service: rotation, broken edits, and what stops the start."""

from __future__ import annotations

from pathlib import Path

import pytest

from mes.config import api_keys_admin
from tests.support.process import wait_until

MODEL = "mistral:7b"
PROMPTLY_SECONDS = 5


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys.json"


@pytest.fixture
def running(service, path):
    """A service with a keys file alone, of two workers, and its first key."""

    def start(**more):
        first = api_keys_admin.create_key(path, name="ci", scopes=["inference"])
        told = {"MES_API_KEY": "", "MES_API_KEYS_FILE": path, "WEB_CONCURRENCY": 2, **more}
        return service(models={MODEL: {}}, **told), first

    return start


def statuses(service, key: str, times: int = 12) -> set[int]:
    """What both workers say: each call is a connection of its own."""
    headers = {"Authorization": f"Bearer {key}"}
    return {service.get("/v1/models", headers=headers).status_code for _ in range(times)}


def wait_until_all_say(service, key: str, allowed: set[int]) -> None:
    wait_until(lambda: statuses(service, key) <= allowed, seconds=PROMPTLY_SECONDS)


def test_a_key_is_replaced_without_a_restart_and_without_a_gap(running, path):
    service, old = running()
    assert statuses(service, old) == {200}
    new = api_keys_admin.create_key(path, name="ci", scopes=["inference"])
    wait_until_all_say(service, new, {200})
    assert statuses(service, old) == {200}
    api_keys_admin.revoke_key(path, api_keys_admin.list_keys(path)[0].id)
    wait_until_all_say(service, old, {401, 429})
    assert statuses(service, new) == {200}
    assert not any(key in service.text() for key in (old, new))


def test_the_development_key_is_refused_beside_a_keys_file(running):
    service, _ = running()
    assert statuses(service, "mes-dev-key-123", times=4) == {401}


def test_a_broken_edit_is_told_and_does_not_lock_out_or_stop_anybody(running, path):
    service, key = running()
    good = path.read_text()
    path.write_text(good.replace("sha256", "sha265"))
    wait_until(lambda: statuses(service, key) == {200} and service.log_lines("keys_broken"))
    told = service.log_lines("keys_broken")[0]["problem"]
    assert "/keys/0/sha265: is not a known field" in told
    assert "/keys/0/sha256: is missing" in told
    before = service.worker_pids()
    service.kill_worker(before[0])
    wait_until(lambda: len(set(service.worker_pids()) - set(before)) == 1)
    wait_until(lambda: statuses(service, key) == {200})


def test_a_broken_file_stops_the_start_with_every_mistake(service, path):
    path.write_text('{"keys": [{"name": "two words", "scopes": ["root"], "sha256": "x"}]}')
    failed = service(wait_healthy=False, MES_API_KEYS_FILE=path)
    assert failed.wait(60) != 0
    for place in ("/keys/0/name", "/keys/0/scopes/0", "/keys/0/sha256"):
        assert place in failed.text()
    assert "MES does not start" in failed.text()
    assert "Traceback" not in failed.text()


def test_a_file_that_others_may_read_is_warned_of_once(running, path):
    service, _ = running()
    assert service.log_lines("api_keys_file_too_open") == []
    service.stop()
    path.chmod(0o644)
    service.start()
    service.wait_until_healthy()
    (warning,) = service.log_lines("api_keys_file_too_open")
    assert warning["remedy"] == f"chmod 600 {path}"
    assert service.other_lines() == []

"""Creating and revoking API keys in a file that is always valid."""

from __future__ import annotations

import json
import os
import stat
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest

from mes.config import api_keys_admin, timed_lock
from mes.config.api_keys import ApiKeys, ApiKeysError, ApiKeysFile, key_digest
from tests.support.lock_holder import stopped_holder

_JANUARY = datetime(2999, 1, 31, tzinfo=UTC)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys.json"


def _create_ten_keys(path: Path) -> None:
    for number in range(10):
        api_keys_admin.create_key(path, name=f"n{number}", scopes=["inference"])


def test_a_new_key_is_valid_and_the_file_contains_only_its_digest(path):
    key = api_keys_admin.create_key(
        path, name="ci", scopes=["inference", "metrics"], expires=_JANUARY
    )
    found = ApiKeys(None, ApiKeysFile(path).current).find(key)
    assert (found.name, found.scopes, found.expires) == ("ci", {"inference", "metrics"}, _JANUARY)
    assert key_digest(key) in path.read_text()
    assert key not in path.read_text()


def test_keys_are_long_and_all_different(path):
    created = {api_keys_admin.create_key(path, name="ci", scopes=["inference"]) for _ in range(5)}
    assert len(created) == 5
    assert all(key.startswith("mes_") and len(key) >= 43 for key in created)


def test_the_file_is_private_from_the_first_byte(path):
    before = os.umask(0)
    try:
        api_keys_admin.create_key(path, name="ci", scopes=["inference"])
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize(("mode", "kept"), [(0o640, 0o640), (0o666, 0o640), (0o600, 0o600)])
def test_an_edit_keeps_the_permissions_of_the_group_to_read_and_no_others(path, mode, kept):
    api_keys_admin.create_key(path, name="ci", scopes=["inference"])
    path.chmod(mode)
    api_keys_admin.create_key(path, name="ci", scopes=["inference"])
    assert stat.S_IMODE(path.stat().st_mode) == kept


def test_a_key_revoked_by_name_is_invalid_and_keeps_its_entry(path):
    key = api_keys_admin.create_key(path, name="ci", scopes=["inference"])
    assert api_keys_admin.revoke_key(path, "ci").name == "ci"
    assert ApiKeys(None, ApiKeysFile(path).current).find(key) is None
    assert [key.disabled for key in api_keys_admin.list_keys(path)] == [True]


def test_one_of_two_keys_with_the_same_name_is_revoked_by_its_id(path):
    old, new = (api_keys_admin.create_key(path, name="ci", scopes=["inference"]) for _ in range(2))
    with pytest.raises(api_keys_admin.ApiKeyNotFound, match="2 keys have the name ci"):
        api_keys_admin.revoke_key(path, "ci")
    api_keys_admin.revoke_key(path, key_digest(old)[:8])
    keys = ApiKeys(None, ApiKeysFile(path).current)
    assert (keys.find(old), keys.find(new).name) == (None, "ci")


def test_the_error_for_an_unknown_key_lists_the_enabled_ones(path):
    api_keys_admin.create_key(path, name="ci", scopes=["inference"])
    with pytest.raises(api_keys_admin.ApiKeyNotFound, match=r"no enabled key.*ci \([0-9a-f]{8}\)"):
        api_keys_admin.revoke_key(path, "other")


def test_a_broken_file_is_reported_and_not_changed(path):
    path.write_text("{")
    with pytest.raises(ApiKeysError, match="is not JSON"):
        api_keys_admin.create_key(path, name="ci", scopes=["inference"])
    assert path.read_text() == "{"


def test_an_invalid_key_is_not_written(path):
    with pytest.raises(ApiKeysError, match="/keys/0/name"):
        api_keys_admin.create_key(path, name="two words", scopes=["inference"])
    assert not path.exists()


def test_a_symbolic_link_stays_one(path, tmp_path):
    link = tmp_path / "link.json"
    link.symlink_to(path)
    api_keys_admin.create_key(link, name="ci", scopes=["inference"])
    assert link.is_symlink()
    assert len(json.loads(path.read_text())["keys"]) == 1


def test_a_missing_folder_is_reported(tmp_path):
    with pytest.raises(ApiKeysError, match="cannot be written"):
        api_keys_admin.create_key(
            tmp_path / "absent" / "keys.json", name="ci", scopes=["inference"]
        )


def test_concurrent_edits_lose_no_key(path):
    with ProcessPoolExecutor(4) as pool:
        list(pool.map(_create_ten_keys, [path] * 4))
    assert len(api_keys_admin.list_keys(path)) == 40
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_an_edit_while_a_stopped_command_edits_is_refused_with_its_process(path, monkeypatch):
    monkeypatch.setattr(timed_lock, "LOCK_SECONDS", 0.05)
    with (
        stopped_holder(path.parent) as holder,
        pytest.raises(ApiKeysError, match=f"another command: process {holder.pid} .stopped"),
    ):
        api_keys_admin.create_key(path, name="ci", scopes=["inference"])
    api_keys_admin.create_key(path, name="ci", scopes=["inference"])

"""The keysmith: keys made and revoked in a file that always holds."""

from __future__ import annotations

import json
import os
import stat
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest

from mes.config import api_keys_admin
from mes.config.api_keys import ApiKeys, ApiKeysError, ApiKeysFile, key_digest

_JANUARY = datetime(2999, 1, 31, tzinfo=UTC)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys.json"


def _make_ten(path: Path) -> None:
    for number in range(10):
        api_keys_admin.create_key(path, name=f"n{number}", scopes=["inference"])


def test_a_new_key_opens_the_door_and_the_file_holds_its_digest_alone(path):
    key = api_keys_admin.create_key(
        path, name="ci", scopes=["inference", "metrics"], expires=_JANUARY
    )
    found = ApiKeys(None, ApiKeysFile(path).current).find(key)
    assert (found.name, found.scopes, found.expires) == ("ci", {"inference", "metrics"}, _JANUARY)
    assert key_digest(key) in path.read_text()
    assert key not in path.read_text()


def test_keys_are_long_and_each_is_another(path):
    made = {api_keys_admin.create_key(path, name="ci", scopes=["inference"]) for _ in range(5)}
    assert len(made) == 5
    assert all(key.startswith("mes_") and len(key) >= 43 for key in made)


def test_the_file_is_private_from_the_first_byte(path):
    before = os.umask(0)
    try:
        api_keys_admin.create_key(path, name="ci", scopes=["inference"])
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize(("mode", "kept"), [(0o640, 0o640), (0o666, 0o640), (0o600, 0o600)])
def test_an_edit_leaves_the_group_its_right_to_read_and_nobody_more(path, mode, kept):
    api_keys_admin.create_key(path, name="ci", scopes=["inference"])
    path.chmod(mode)
    api_keys_admin.create_key(path, name="ci", scopes=["inference"])
    assert stat.S_IMODE(path.stat().st_mode) == kept


def test_revoking_by_name_leaves_the_entry_and_shuts_the_door(path):
    key = api_keys_admin.create_key(path, name="ci", scopes=["inference"])
    assert api_keys_admin.revoke_key(path, "ci").name == "ci"
    assert ApiKeys(None, ApiKeysFile(path).current).find(key) is None
    assert [each.disabled for each in api_keys_admin.list_keys(path)] == [True]


def test_of_two_keys_with_one_name_the_id_tells_which_is_revoked(path):
    old, new = (api_keys_admin.create_key(path, name="ci", scopes=["inference"]) for _ in range(2))
    with pytest.raises(api_keys_admin.NoSuchKey, match="2 keys have the name ci"):
        api_keys_admin.revoke_key(path, "ci")
    api_keys_admin.revoke_key(path, key_digest(old)[:8])
    keys = ApiKeys(None, ApiKeysFile(path).current)
    assert (keys.find(old), keys.find(new).name) == (None, "ci")


def test_revoking_what_is_no_key_says_which_there_are(path):
    api_keys_admin.create_key(path, name="ci", scopes=["inference"])
    with pytest.raises(api_keys_admin.NoSuchKey, match=r"no enabled key.*ci \([0-9a-f]{8}\)"):
        api_keys_admin.revoke_key(path, "other")


def test_a_broken_file_is_told_and_left_alone(path):
    path.write_text("{")
    with pytest.raises(ApiKeysError, match="is not JSON"):
        api_keys_admin.create_key(path, name="ci", scopes=["inference"])
    assert path.read_text() == "{"


def test_a_key_that_could_not_be_read_back_is_not_written(path):
    with pytest.raises(ApiKeysError, match="/keys/0/name"):
        api_keys_admin.create_key(path, name="two words", scopes=["inference"])
    assert not path.exists()


def test_a_link_goes_on_pointing_to_the_file(path, tmp_path):
    link = tmp_path / "link.json"
    link.symlink_to(path)
    api_keys_admin.create_key(link, name="ci", scopes=["inference"])
    assert link.is_symlink()
    assert len(json.loads(path.read_text())["keys"]) == 1


def test_a_folder_that_is_not_there_is_told_in_words(tmp_path):
    with pytest.raises(ApiKeysError, match="cannot be written"):
        api_keys_admin.create_key(
            tmp_path / "absent" / "keys.json", name="ci", scopes=["inference"]
        )


def test_of_several_who_edit_at_a_time_nobody_loses_a_key(path):
    with ProcessPoolExecutor(4) as pool:
        list(pool.map(_make_ten, [path] * 4))
    assert len(api_keys_admin.list_keys(path)) == 40
    assert [each.name for each in path.parent.iterdir()] == [path.name]

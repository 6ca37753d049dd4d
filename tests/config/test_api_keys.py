"""The file of API keys: its fields, the errors for invalid files, and reloading."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mes.config.api_keys import (
    ADMIN,
    INFERENCE,
    METRICS,
    ApiKeys,
    ApiKeysError,
    ApiKeysFile,
    is_accessible_by_others,
    key_digest,
    parse_api_keys,
)

DIGEST = key_digest("a")


def entry(key: str = "a", **fields: object) -> dict[str, object]:
    return {"name": "ci", "scopes": ["inference"], "sha256": key_digest(key), **fields}


def text(*entries: object) -> bytes:
    return json.dumps({"keys": entries}).encode()


def mistakes(document: bytes) -> dict[str, str]:
    with pytest.raises(ApiKeysError) as caught:
        parse_api_keys(document, path=Path("keys.json"))
    return {mistake.pointer: mistake.detail for mistake in caught.value.mistakes}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "keys.json"
    path.write_bytes(text(entry()))
    return path


def test_a_key_allows_its_scopes_and_admin_allows_all():
    key, admin = parse_api_keys(text(entry(), entry("b", scopes=["admin"])), path=Path("k"))
    assert [key.allows(scope) for scope in (INFERENCE, ADMIN, METRICS)] == [True, False, False]
    assert all(admin.allows(scope) for scope in (INFERENCE, ADMIN, METRICS))


def test_all_mistakes_are_reported_at_once_with_their_place_and_never_with_a_value():
    details = mistakes(
        text(
            {"name": "two words", "scopes": ["root"], "sha256": "mes_the-key-itself"},
            {"scopes": [], "sha256": DIGEST.upper(), "colo/ur": "blue"},
            entry(expires="tomorrow", created="2026-01-01T00:00:00", disabled="no"),
            "mes_the-key-itself",
        )
    )
    assert set(details) == {
        "/keys/0/name",
        "/keys/0/scopes/0",
        "/keys/0/sha256",
        "/keys/1/name",
        "/keys/1/scopes",
        "/keys/1/sha256",
        "/keys/1/colo~1ur",
        "/keys/2/expires",
        "/keys/2/created",
        "/keys/2/disabled",
        "/keys/3",
    }
    assert details["/keys/0/scopes/0"] == "is not one of inference, admin, metrics"
    assert "mes_the-key-itself" not in str(details)


@pytest.mark.parametrize("document", [b"", b"[]", b"{}", b"null", b'{"keys": {}}', b"\xff", b"{,}"])
def test_a_file_that_is_not_a_keys_file_is_one_mistake(document):
    assert len(mistakes(document)) == 1


def test_two_entries_for_one_key_are_a_mistake():
    assert set(mistakes(text(entry(), entry(name="other")))) == {
        "/keys/0/sha256",
        "/keys/1/sha256",
    }


def test_two_keys_of_one_name_are_valid_at_a_time_so_that_one_can_replace_the_other(path):
    path.write_bytes(text(entry("old"), entry("new")))
    keys = ApiKeys(None, ApiKeysFile(path).current)
    assert [keys.find(key).name for key in ("old", "new")] == ["ci", "ci"]


@pytest.mark.parametrize("ended", [{"disabled": True}, {"expires": "2020-01-01T00:00:00Z"}])
def test_a_key_that_is_disabled_or_has_expired_is_not_found(path, ended):
    path.write_bytes(text(entry(**ended), entry("b", expires="2999-01-01T00:00:00+02:00")))
    keys = ApiKeys(None, ApiKeysFile(path).current)
    assert keys.find("a") is None
    assert keys.find("b") is not None


def test_the_key_of_the_settings_is_valid_beside_those_of_the_file(path):
    keys = ApiKeys("of-the-settings", ApiKeysFile(path).current)
    assert keys.find("of-the-settings").name == "default"
    assert keys.find("of-the-settings").allows(ADMIN)
    assert keys.find("a").name == "ci"
    assert keys.find("wrong") is None


def test_an_edit_takes_effect_without_a_restart(path):
    keys = ApiKeys(None, ApiKeysFile(path).current)
    assert keys.find("a")
    path.write_bytes(text(entry("b")))
    assert not keys.find("a")
    assert keys.find("b")


@pytest.mark.parametrize("spoil", [lambda p: p.write_text("{"), lambda p: p.unlink()])
def test_a_broken_edit_is_logged_and_the_last_good_keys_stay_valid(path, caplog, spoil):
    file = ApiKeysFile(path)
    keys = ApiKeys(None, file.current)
    assert keys.find("a")
    spoil(path)
    assert keys.find("a")
    assert [r.message for r in caplog.records if r.levelname == "ERROR"] == ["keys_broken"]
    assert str(path) in file.problem


def test_a_process_that_starts_after_a_broken_edit_knows_the_keys_revoked_before(path, tmp_path):
    def new_process() -> ApiKeys:
        return ApiKeys(
            None, ApiKeysFile(path, last_good_path=tmp_path / "state" / "keys.json").current
        )

    first = new_process()
    assert first.find("a")
    path.write_bytes(text())
    assert first.find("a") is None
    path.write_bytes(b"{")
    assert first.find("a") is None
    assert new_process().find("a") is None


def test_the_error_for_a_missing_file_says_how_to_create_one(tmp_path):
    with pytest.raises(ApiKeysError, match=r"No such file.*mes key new"):
        ApiKeysFile(tmp_path / "absent.json").current()


def test_a_byte_order_mark_before_the_file_is_skipped(path):
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert ApiKeysFile(path).current()


def test_a_file_that_others_may_read_is_recognized(path):
    path.chmod(0o644)
    assert is_accessible_by_others(path)
    path.chmod(0o600)
    assert not is_accessible_by_others(path)

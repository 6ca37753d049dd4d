"""Tests of `mes key`: the keys file that it edits, and its output."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from mes.cli.key import key
from mes.config.api_keys import ApiKeys, ApiKeysFile


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "keys.json"
    monkeypatch.chdir(tmp_path)  # a folder without a .env file
    monkeypatch.setenv("MES_API_KEYS_FILE", str(path))
    return path


def run(*arguments: str) -> Result:
    return CliRunner().invoke(key, arguments)


def test_new_prints_the_key_alone_to_standard_output(path):
    result = run("new", "--name", "ci", "--scope", "admin", "--scope", "inference")
    assert result.exit_code == 0
    found = ApiKeys(None, ApiKeysFile(path).current).find(result.stdout.strip())
    assert (found.name, found.scopes) == ("ci", {"admin", "inference"})
    assert result.stdout.count("\n") == 1


def test_the_default_scope_is_inference(path):
    run("new", "--name", "ci")
    assert ApiKeysFile(path).current().popitem()[1].scopes == {"inference"}


def test_list_shows_name_id_scopes_and_state_but_no_key(path):
    keys = [run("new", "--name", "ci").stdout.strip(), run("new", "--name", "old").stdout.strip()]
    run("new", "--name", "gone", "--expires", "2020-01-01")
    run("new", "--name", "later", "--expires", "2999-01-31")
    run("revoke", "old")
    lines = run("list").stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["ci", "old", "gone", "later"]
    assert [line.split()[4:] for line in lines] == [
        ["valid"],
        ["disabled"],
        ["expired", "2020-01-01"],
        ["valid", "until", "2999-01-31"],
    ]
    assert not any(key in line for key in keys for line in lines)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["new"], "--name"),
        (["new", "--name", "two words"], "A-Z a-z 0-9"),
        (["new", "--name", "ci", "--scope", "root"], "'inference', 'admin', 'metrics'"),
        (["new", "--name", "ci", "--expires", "soon"], "%Y-%m-%d"),
        (["revoke", "nobody"], "no enabled key has the name or id nobody"),
        (["list"], "mes key new"),
        (["list", "--file", "absent.json"], "absent.json"),
    ],
)
def test_mistakes_are_reported_without_a_traceback(path, arguments, expected):
    if arguments[0] == "revoke":
        run("new", "--name", "ci")
    result = run(*arguments)
    assert result.exit_code != 0
    assert expected in result.stderr
    assert "Traceback" not in result.stderr


def test_without_a_file_the_error_names_the_option_and_the_setting(path, monkeypatch):
    monkeypatch.delenv("MES_API_KEYS_FILE")
    error = run("list").stderr
    assert "--file" in error
    assert "MES_API_KEYS_FILE" in error

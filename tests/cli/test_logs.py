"""Tests of `mes logs`: the log files of the present folder."""

from __future__ import annotations

import os
import sys

import pytest
import responses
from click.testing import CliRunner

from mes.cli.main import mes as command
from tests.support import process
from tests.support.process import ROOT, wait_until


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "mes.log").write_text("one\ntwo\nthree\n")
    return tmp_path


def logs(*arguments: str, url: str = "127.0.0.1:1"):
    return CliRunner().invoke(command, ["logs", *arguments, "--url", url])


def test_the_log_of_the_service_is_printed(folder):
    assert logs().stdout == "one\ntwo\nthree\n"
    assert logs("-n", "2").stdout == "two\nthree\n"
    assert logs("--tail", "0").stdout == ""


def test_the_log_of_the_runtime_is_printed_by_its_name(folder):
    (folder / "logs" / "runtime.log").write_bytes(b"loaded \xff\n")
    assert logs("runtime").stdout == "loaded \ufffd\n"


def test_a_missing_log_is_reported_with_the_folder_to_go_to(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = logs()
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("mes: logs/mes.log cannot be read")
    assert "mes up" in result.stderr


def test_elsewhere_the_log_of_the_running_service_is_printed(folder, tmp_path_factory, monkeypatch):
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    with responses.RequestsMock() as server:
        answer = {"settings": {}, "working_directory": str(folder)}
        server.get("http://mes.test/v1/settings", json=answer)
        assert logs("-n", "1", url="http://mes.test").stdout == "three\n"


def test_a_log_is_followed_over_its_rotation(folder):
    log, output = folder / "logs" / "mes.log", folder / "output"
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    arguments = [sys.executable, "-m", "mes", "logs", "-f", "-n", "1"]
    following = process.start(arguments, env=env, output=output, folder=folder)
    wait_until(lambda: output.read_text() == "three\n")
    with log.open("a") as stream:
        stream.write("four\n")
    wait_until(lambda: output.read_text() == "three\nfour\n")
    log.rename(folder / "logs" / "mes.log.1")
    log.write_text("five\n")
    wait_until(lambda: output.read_text() == "three\nfour\nfive\n")
    log.write_text("6\n")  # shorter than before: it was emptied
    wait_until(lambda: output.read_text() == "three\nfour\nfive\n6\n")
    process.kill(following)

"""Log files are appended to, rotated by size, and an earlier crash stays in them."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys

import pytest

from mes.cli import log_files
from tests.support.process import wait_until


@pytest.fixture
def path(tmp_path, monkeypatch):
    monkeypatch.setattr(log_files, "MAX_BYTES", 1000)
    monkeypatch.setattr(log_files, "_CHECK_SECONDS", 0.01)
    return tmp_path / "logs" / "mes.log"


def numbered(path):
    return sorted(file.name for file in path.parent.iterdir())


def write(path, *lines):
    with log_files.appended(path) as log:
        log.writelines(f"{line}\n".encode() for line in lines)


def test_the_end_of_an_earlier_run_is_still_there_after_the_next_start(path):
    write(path, "a crash")
    write(path, "a start")
    started, crash, *rest = path.read_text().splitlines()
    assert json.loads(started)["event"] == "log_opened"
    assert (crash, rest[-1]) == ("a crash", "a start")


def test_the_last_lines_are_those_since_the_last_start(path):
    write(path, "a crash")
    write(path, "1", "2", "3")
    assert log_files.last_lines(path, 15) == ["1", "2", "3"]
    assert log_files.last_lines(path, 2) == ["2", "3"]


def test_a_large_log_is_rotated_at_a_start_and_few_files_are_kept(path):
    for n in range(7):
        write(path, f"run {n} {'x' * 1000}")
    assert numbered(path) == ["mes.log", "mes.log.1", "mes.log.2", "mes.log.3"]
    assert "run 6" in path.read_text()
    assert "run 3" in path.with_name("mes.log.3").read_text()


def test_a_log_that_grows_is_rotated_while_a_program_writes_to_it(path):
    code = "import os, time\nfor n in range(400): os.write(1, b'%09d\\n' % n); time.sleep(0.0005)"
    with log_files.appended(path) as log:
        subprocess.run([sys.executable, "-c", code], stdout=log, check=True)
        wait_until(lambda: path.stat().st_size < 1000)
    assert len(numbered(path)) == 4
    kept = [path.with_name(f"mes.log.{n}") for n in (3, 2, 1)] + [path]
    lines = [line for file in kept for line in file.read_text().splitlines() if line.isdigit()]
    assert lines == sorted(lines), "each line once, and in order"
    assert lines[-1] == "000000399"


def test_a_log_that_cannot_be_copied_is_kept_as_it_is(path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    write(path, "a crash", "x" * 2000)
    monkeypatch.setattr(shutil, "copyfileobj", full)
    write(path, "a start")
    assert "a crash" in path.read_text()
    assert "a start" in path.read_text()

"""The systemd unit: systemd finds no fault in it, and gunicorn tells when it is ready."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys

import pytest

from tests.support.process import ROOT

UNIT = ROOT / "deploy" / "mes.service"

with_systemd = pytest.mark.skipif(
    not shutil.which("systemd-analyze"), reason="no systemd-analyze here: apt-get install systemd"
)


def analyzed(*command: str) -> str:
    done = subprocess.run(
        ["systemd-analyze", *command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@with_systemd
def test_systemd_finds_no_fault_in_it(tmp_path):
    # What it starts need not be installed here.
    text = UNIT.read_text().replace("/opt/mes/.venv/bin/gunicorn", sys.executable)
    text = text.replace("/opt/mes/.venv/bin/python", sys.executable)
    here = tmp_path / UNIT.name
    here.write_text(text)
    assert analyzed("verify", "--man=no", str(here)) == ""


@with_systemd
def test_it_gives_away_little_of_the_machine():
    # In tenths: 100 is a service without any protection.
    analyzed("security", "--offline=true", "--threshold=20", str(UNIT))


def test_gunicorn_says_when_it_is_ready(service, tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(60)
        service(wait_healthy=False, NOTIFY_SOCKET=tmp_path / "notify")
        assert systemd.recv(4096).startswith(b"READY=1\n")

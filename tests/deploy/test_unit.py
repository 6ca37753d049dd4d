"""Tests of the systemd unit: systemd accepts it, and gunicorn notifies when it is ready."""

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


def analyze(*command: str) -> str:
    done = subprocess.run(
        ["systemd-analyze", *command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@with_systemd
def test_systemd_accepts_the_unit(tmp_path):
    # The programs that it starts are not installed here.
    text = UNIT.read_text().replace("/opt/mes/.venv/bin/gunicorn", sys.executable)
    text = text.replace("/opt/mes/.venv/bin/python", sys.executable)
    unit = tmp_path / UNIT.name
    unit.write_text(text)
    assert analyze("verify", "--man=no", str(unit)) == ""


@with_systemd
def test_the_unit_is_protected():
    # The exposure in tenths: 100 is a service without any protection.
    analyze("security", "--offline=true", "--threshold=20", str(UNIT))


def test_gunicorn_notifies_when_it_is_ready(service, tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(60)
        service(wait_healthy=False, NOTIFY_SOCKET=tmp_path / "notify")
        assert systemd.recv(4096).startswith(b"READY=1\n")

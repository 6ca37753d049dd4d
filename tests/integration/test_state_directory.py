"""Damage to the state directory: MES serves requests, keeps its limits, repairs and logs once."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import pytest

from tests.integration.helpers import (
    answers,
    asked,
    burst,
    held,
    living,
    registry,
    wait_until_at_rest,
    wait_until_held,
)
from tests.support import process
from tests.support.process import wait_until
from tests.support.service import Service

MODEL = "mistral:7b"
MODELS = {MODEL: {"max_concurrent": 2, "max_queue": 60, "timeout": 600}}

pytestmark = pytest.mark.usefixtures("clean")


@pytest.fixture(scope="module")
def service(start):
    return start(models=MODELS)


@pytest.fixture(autouse=True)
def _four_workers(service):
    wait_until(lambda: len(living(service)) == 4)


def check_requests_are_served(service, runtime, harm):
    """Do the harm while two requests run and four wait: all are served, two at a time."""
    runtime.control(first_token_ms=5000)
    calls = burst(service, MODEL, 6)
    wait_until_held(service, permits=2, tickets=4)
    harm()
    calls += burst(service, MODEL, 4)
    wait_until_held(service, permits=2, tickets=8)
    runtime.control(first_token_ms=10)
    assert {answer.status for answer in answers(calls)} == {200}
    assert runtime.model(MODEL)["peak"] == 2
    assert runtime.model(MODEL)["implicit_loads"] == 0
    wait_until_at_rest(service)
    assert service.log_lines("internal_error") == service.log_lines("leader_failed") == []


DAMAGE = {
    "truncated": lambda content: content[: len(content) // 2],
    "empty": lambda content: b"",
    "garbage": lambda content: b"\xff\x00" * 5000,
    "another shape": lambda content: b"[]",
    "no version": lambda content: b"{}",
    "a wrong permit": lambda content: content.replace(b'"permits":{', b'"permits":{"x":7,'),
    "negative": lambda content: content.replace(b'"number":', b'"number":-'),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_to_the_registry_file_changes_nothing_and_is_repaired(service, runtime, damage):
    path = service.state_dir / "registry.json"
    asked(service, MODEL)
    wait_until(path.exists)
    logged = len(service.log_lines("state_dir_repaired"))
    check_requests_are_served(
        service, runtime, lambda: path.write_bytes(DAMAGE[damage](path.read_bytes()))
    )
    wait_until(lambda: len(service.log_lines("state_dir_repaired")) == logged + 1)
    wait_until(lambda: path.read_bytes().startswith(b'{"sequence"'))


def test_a_deleted_registry_file_changes_nothing_and_is_written_anew(service, runtime):
    path = service.state_dir / "registry.json"
    asked(service, MODEL)
    wait_until(path.exists)
    check_requests_are_served(service, runtime, path.unlink)
    wait_until(path.exists)


def test_deleted_wakeup_pipes_are_created_again(service, runtime):
    def remove():
        for pipe in (service.state_dir / "workers").glob("*.wakeup"):
            pipe.unlink()

    check_requests_are_served(service, runtime, remove)
    wait_until(lambda: len(living(service)) == 4)
    assert len(service.log_lines("wakeup_pipe_renewed")) == 4


def test_a_deleted_directory_is_created_again(service, runtime):
    check_requests_are_served(service, runtime, lambda: shutil.rmtree(service.state_dir))
    wait_until(lambda: (service.state_dir / "registry.json").exists())
    wait_until(lambda: len(living(service)) == 4)
    assert service.get("/ready").status_code == 200
    assert service.state_dir.stat().st_mode & 0o777 == 0o700
    assert service.log_lines("state_dir_unusable") == []


def test_a_suspended_machine_continues(service, runtime):
    """Pause all processes, which is a gap in time like that of a suspended machine."""

    def pause():
        os.killpg(service.process.pid, signal.SIGSTOP)
        time.sleep(3)
        os.killpg(service.process.pid, signal.SIGCONT)

    check_requests_are_served(service, runtime, pause)
    wait_until(lambda: service.get("/ready").status_code == 200)
    assert service.log_lines("workers_died") == []


def in_flight(service):
    """Return the number of permits that any worker reports."""
    return sum(model["in_flight"] for model in service.get("/v1/status").json()["models"])


def is_stopped(pid):
    """Return whether all threads of the process are stopped; some run for a moment longer."""
    stats = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/stat")]
    return all(stat.rpartition(")")[2].split()[0] == "T" for stat in stats)


def test_a_stopped_worker_keeps_its_permits_and_delays_no_request(service, runtime):
    runtime.control(first_token_ms=600_000)
    calls = burst(service, MODEL, 2)
    wait_until(lambda: held(service, "permits") == 2)
    owner = next(iter(registry(service)["permits"].values()))["worker"]
    pid = int(owner.partition("-")[0])
    mine = held(service, "permits", pid)
    os.kill(pid, signal.SIGSTOP)
    wait_until(lambda: is_stopped(pid))
    try:
        for call in calls:
            call.hang_up()
        wait_until(lambda: in_flight(service) == mine)
        time.sleep(2)
        assert in_flight(service) == mine
        assert all(service.get("/health").status_code == 200 for _ in range(5))
    finally:
        os.kill(pid, signal.SIGCONT)
    wait_until_at_rest(service)
    assert service.log_lines("workers_died") == []


@pytest.fixture
def tiny(service, runtime, tmp_path):
    """Start a service whose state directory is a small file system."""
    if os.geteuid() != 0:
        pytest.skip("only root may mount")
    running = Service(tmp_path, ollama_url=runtime.url, models=MODELS, wait_healthy=False)
    running.close()
    running.state_dir.mkdir()
    mounted = ["mount", "-t", "tmpfs", "-o", "size=128k,mode=700", "tmpfs", str(running.state_dir)]
    if subprocess.run(mounted).returncode:
        pytest.skip("this machine does not allow mounts")
    try:
        running.start()
        running.wait_until_ready()
        wait_until(lambda: len(living(running)) == 4)
        yield running
    finally:
        process.kill(running.process)
        while running.state_dir.is_mount():  # one may lie over the other
            subprocess.run(["umount", "-l", str(running.state_dir)], check=True)
        running.close()


def fill(folder):
    """Fill the file system of the folder to the last byte."""
    with (folder / "filler").open("ab", buffering=0) as filler, suppress(OSError):
        while True:
            filler.write(b"x" * 4096)


def test_a_full_directory_is_named_and_requests_are_served(tiny, runtime):
    def is_full():
        fill(tiny.state_dir)  # again: replaced files may have made room
        return "No space left" in tiny.get("/ready").json()["state"]

    check_requests_are_served(tiny, runtime, lambda: wait_until(is_full))
    check = tiny.get("/ready")
    assert check.status_code == 503
    assert str(tiny.state_dir) in check.json()["state"]
    replace_a_worker(tiny)
    assert {asked(tiny, MODEL).status for _ in range(20)} == {200}
    assert len(tiny.log_lines("state_dir_unusable")) == 1
    (tiny.state_dir / "filler").unlink()
    tiny.wait_until_ready()
    assert len(tiny.log_lines("state_dir_usable")) == 1
    assert tiny.log_lines("internal_error") == tiny.log_lines("leader_failed") == []


def test_a_registry_file_cut_short_on_a_full_disk_refuses_requests_until_there_is_room(tiny):
    assert asked(tiny, MODEL).status == 200
    os.truncate(tiny.state_dir / "registry.json", 0)
    fill(tiny.state_dir)
    refused = asked(tiny, MODEL)
    assert (refused.status, refused.code) == (503, "state_dir_full")
    assert refused.headers["retry-after"] == "5"
    assert f"STATE_DIR {tiny.state_dir} cannot store this request" in refused.json()["detail"]
    wait_until(lambda: "No space left" in tiny.get("/ready").json()["state"])
    (tiny.state_dir / "filler").unlink()
    tiny.wait_until_ready()
    assert asked(tiny, MODEL).status == 200
    assert len(tiny.log_lines("state_dir_unusable")) == 1
    assert tiny.log_lines("internal_error") == tiny.log_lines("leader_failed") == []


def replace_a_worker(running):
    """Kill a worker; its successor starts with a directory in which it can create no file."""
    victim = running.worker_pids()[0]
    running.kill_worker(victim)
    wait_until(lambda: victim not in running.worker_pids() and len(running.worker_pids()) == 4)


def test_a_read_only_directory_is_named_and_requests_are_served(tiny, runtime):
    """Mount an empty read-only file system over the directory."""
    over = ["mount", "-t", "tmpfs", "-o", "ro,mode=700", "tmpfs", str(tiny.state_dir)]

    def make_read_only():
        subprocess.run(over, check=True)

    check_requests_are_served(tiny, runtime, make_read_only)
    wait_until(lambda: "Read-only" in tiny.get("/ready").json()["state"])
    replace_a_worker(tiny)
    assert {answer.status for answer in answers(burst(tiny, MODEL, 20))} == {200}
    assert runtime.model(MODEL)["peak"] == 2
    assert len(tiny.log_lines("state_dir_unusable")) == 1
    subprocess.run(["umount", str(tiny.state_dir)], check=True)
    tiny.wait_until_ready()


def test_a_second_instance_is_refused_with_the_name_of_the_first(service, runtime, tmp_path):
    second = Service(
        tmp_path, ollama_url=runtime.url, wait_healthy=False, STATE_DIR=service.state_dir
    )
    with second:
        assert second.wait(30) != 0
        assert f"STATE_DIR {service.state_dir} belongs to the MES" in second.text()
        assert f"process {service.process.pid} at 127.0.0.1:{service.port}" in second.text()
        assert "Traceback" not in second.text()
    assert asked(service, MODEL).status == 200


def test_a_directory_without_an_instance_is_taken_over(service, runtime, tmp_path):
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "instance.lock").write_text("the MES with process 1 at nowhere")
    (tmp_path / "state" / "registry.json").write_bytes(b'{"version":1,"boot":7}')
    options = {"ollama_url": runtime.url, "models": MODELS, "STATE_DIR": tmp_path / "state"}
    with Service(tmp_path, **options) as second:
        assert asked(second, MODEL).status == 200
        assert len(second.log_lines("registry_unusable")) == 1


def test_a_start_without_a_usable_directory_is_refused_with_the_reason(runtime, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    options = {"ollama_url": runtime.url, "wait_healthy": False, "STATE_DIR": tmp_path / "file"}
    with Service(tmp_path, **options) as refused:
        assert refused.wait(30) != 0
        assert f"STATE_DIR {tmp_path}/file cannot be used" in refused.text()
        assert "Traceback" not in refused.text()


JUMPING_CLOCK = """
import os, time
real = time.time
def jumping():
    try:
        return real() + float(open(os.environ["CLOCK"]).read() or 0)
    except OSError:
        return real()
time.time = jumping
time.time_ns = lambda: int(jumping() * 1e9)
"""


def test_the_wall_clock_may_jump(runtime, tmp_path):
    (tmp_path / "sitecustomize.py").write_text(JUMPING_CLOCK)
    clock = tmp_path / "clock"
    options = {"CLOCK": clock, "PYTHONPATH": tmp_path, "IDLE_UNLOAD": 3600}
    with Service(tmp_path, ollama_url=runtime.url, models=MODELS, **options) as jumpy:
        wait_until(lambda: len(living(jumpy)) == 4)
        for days in (1, -1, 365):
            check_requests_are_served(
                jumpy, runtime, lambda to=days: clock.write_text(str(to * 86_400))
            )
        assert jumpy.get("/ready").status_code == 200
        assert runtime.model(MODEL)["loads"] <= 1, "nothing was unloaded for being idle so long"

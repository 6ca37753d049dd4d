"""Tests of the command as a process: in a terminal, in a pipe, with Ctrl-C."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from importlib.metadata import entry_points

import pytest

from mes.cli.main import mes as command
from tests.cli.conftest import ABSENT, HERE
from tests.support import process
from tests.support.process import ROOT, free_port, wait_until

MES = [sys.executable, "-m", "mes"]


class Terminal:
    """The command in a pseudo-terminal; `text` is its output so far."""

    def __init__(self, environ: dict[str, str], *arguments: str) -> None:
        self._master, slave = pty.openpty()
        env = {**os.environ, "MES_URL": "", "TERM": "xterm-256color", **environ}
        streams = {"stdin": slave, "stdout": slave, "stderr": slave}
        self.process = subprocess.Popen([*MES, *arguments], env=env, cwd=ROOT, **streams)
        os.close(slave)
        self.text = ""

    def wait_for(self, *words: str, seconds: float = 30.0) -> None:
        """Read output until it contains all the words."""
        deadline = time.monotonic() + seconds
        while not all(word in self.text for word in words):
            assert time.monotonic() < deadline, f"no {words} in {self.text!r}"
            if select.select([self._master], [], [], 0.5)[0]:
                self.text += os.read(self._master, 65536).decode()

    def write(self, keys: str) -> None:
        os.write(self._master, keys.encode())

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._master)


def test_the_installed_command_is_this_one():
    (installed,) = entry_points(group="console_scripts", name="mes")
    assert installed.load() is command


def test_help_needs_no_service(program):
    result = program("--help")
    assert result.returncode == 0
    assert result.stdout.startswith("Usage: mes [OPTIONS] COMMAND")


def test_run_reads_standard_input_and_writes_standard_output(program, runtime):
    runtime.control(echo=True)
    result = program("run", HERE, "-", input="Grüße an alle")
    assert (result.returncode, result.stdout, result.stderr) == (0, "Grüße an alle\n", "")


@pytest.mark.parametrize("encoding", ["latin-1", "ascii"])
def test_a_character_that_the_output_lacks_ends_no_command(program, environ, runtime, encoding):
    runtime.control(echo=True)
    environ["PYTHONIOENCODING"] = encoding
    words = [("run", HERE, "-"), ("run", HERE, "-", "--json"), ("models",)]
    results = {arguments: program(*arguments, input="\u65e5\u672c") for arguments in words}
    assert {arguments: each.stderr for arguments, each in results.items() if each.stderr} == {}
    assert results[words[0]].returncode == 0
    assert json.loads(results[words[1]].stdout)["output"] == "\u65e5\u672c"


@pytest.mark.parametrize("arguments", [["run", HERE, "\udcff"], ["chat", HERE]])
def test_text_that_is_not_utf_8_is_refused(environ, arguments):
    env = {**os.environ, "MES_URL": "", **environ}
    done = subprocess.run(
        [*MES, *arguments], input=b"\xff\n", env=env, cwd=ROOT, capture_output=True
    )
    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr.endswith(b"is not UTF-8; convert it first\n")


def test_status_in_a_pipe_is_shown_once_and_plain(program):
    result = program("status")
    assert result.returncode == 0
    assert result.stdout.startswith("MES ")
    assert HERE in result.stdout
    assert "\x1b" not in result.stdout


def test_pull_in_a_pipe_is_plain_lines(program):
    result = program("pull", ABSENT)
    assert (result.returncode, result.stdout) == (0, f"{ABSENT} is pulled\n")
    assert "\x1b" not in result.stderr


def test_a_closed_pipe_causes_no_traceback(environ):
    env = {**os.environ, "MES_URL": "", **environ}
    pipe = f"{sys.executable} -m mes models | true"
    result = subprocess.run(["bash", "-c", pipe], env=env, cwd=ROOT, capture_output=True, text=True)
    assert "Traceback" not in result.stderr


def test_status_on_a_terminal_is_refreshed(environ, service):
    service.post(f"/v1/models/{HERE}/unload")
    terminal = Terminal(environ, "status")
    terminal.wait_for("available")
    service.post(f"/v1/models/{HERE}/load")
    terminal.wait_for("ready")
    terminal.process.send_signal(signal.SIGINT)
    assert terminal.process.wait(20) == 130
    assert "Traceback" not in terminal.text
    terminal.close()


def test_a_pull_on_a_terminal_draws_a_bar(environ):
    terminal = Terminal(environ, "pull", ABSENT)
    terminal.wait_for("pulling manifest", "4.0/4.0 MB", f"{ABSENT} is pulled")
    assert terminal.process.wait(20) == 0
    terminal.close()


def test_no_color_is_respected(environ):
    terminal = Terminal({**environ, "NO_COLOR": "1"}, "check")
    terminal.wait_for("accepts the key")
    assert "\x1b[3" not in terminal.text
    terminal.close()


def test_colors_show_on_a_terminal(environ):
    terminal = Terminal(environ, "check")
    terminal.wait_for("\x1b[32mok")
    terminal.close()


def test_the_first_token_is_not_erased_with_the_spinner(environ, runtime):
    runtime.control(first_token_ms=300, tokens=2)
    terminal = Terminal(environ, "run", HERE, "Hello")
    terminal.wait_for("waiting for", " alpha beta")
    assert terminal.text.rindex("\x1b[2K") < terminal.text.index(" alpha")
    terminal.close()


def test_a_chat_on_a_terminal_goes_on_after_ctrl_c(environ, runtime):
    runtime.control(tokens=2, ms_per_token=60_000)
    terminal = Terminal(environ, "chat", HERE)
    terminal.wait_for(">>> ")
    terminal.write("Hello\n")
    terminal.wait_for(" alpha")
    terminal.process.send_signal(signal.SIGINT)
    terminal.wait_for("the answer was cancelled")
    runtime.control(ms_per_token=0, reply="Good bye")
    terminal.write("Again\n")
    terminal.wait_for("Good bye")
    terminal.write("/bye\n")
    assert terminal.process.wait(20) == 0
    terminal.close()


def test_an_output_cannot_steer_the_terminal(environ, runtime):
    runtime.control(reply="a\x1b]0;owned\x07b")
    terminal = Terminal(environ, "run", HERE, "Hello")
    terminal.wait_for("a]0;ownedb")
    terminal.close()


def test_ctrl_c_ends_quietly_and_cancels_the_generation(environ, runtime, tmp_path):
    runtime.control(tokens=2, ms_per_token=60_000)
    env = {**os.environ, "MES_URL": "", **environ}
    output = tmp_path / "output"
    running = process.start([*MES, "run", HERE, "Hello"], env=env, output=output)
    wait_until(output.read_text, seconds=30)
    running.send_signal(signal.SIGINT)
    assert running.wait(20) == 130
    assert output.read_text() == " alpha\n"
    wait_until(lambda: runtime.model(HERE)["cancelled_generations"], seconds=20)


def test_serve_is_gunicorn_in_the_same_process(environ, tmp_path):
    env = {**os.environ, **environ, "PORT": str(free_port()), "STATE_DIR": str(tmp_path / "state")}
    env |= {"WEB_CONCURRENCY": "", "MES_URL": ""}
    output = tmp_path / "output"
    serving = process.start([*MES, "serve"], env=env, output=output)
    ask = [*MES, "models"]
    wait_until(
        lambda: subprocess.run(ask, env=env, capture_output=True).returncode == 0, seconds=60
    )
    assert process.children(serving.pid), "the workers are children of the command"
    serving.terminate()
    assert serving.wait(40) == 0, output.read_text()


def test_serve_needs_no_file_in_its_folder(environ, tmp_path):
    folder = tmp_path / "empty"
    folder.mkdir()
    environ["MODELS_CONFIG_PATH"] = ""
    env = {**os.environ, **environ, "PORT": str(free_port()), "STATE_DIR": str(tmp_path / "state")}
    env |= {"WEB_CONCURRENCY": "1", "MES_URL": "", "PYTHONPATH": str(ROOT)}
    serving = process.start([*MES, "serve"], env=env, output=tmp_path / "output", folder=folder)
    ask = [*MES, "models", "--json"]
    wait_until(
        lambda: subprocess.run(ask, env=env, cwd=folder, capture_output=True).returncode == 0,
        seconds=60,
    )
    assert process.stop(serving, patience_seconds=40) == 0
    written = folder / "config" / "models.json"
    assert written.read_bytes() == (ROOT / "config" / "models.json").read_bytes()


def test_serve_reports_wrong_settings_without_a_traceback(program, environ):
    environ["PORT"] = "eighty"
    result = program("serve")
    assert result.returncode == 1
    assert "PORT: 'eighty' is invalid" in result.stderr + result.stdout
    assert "Traceback" not in result.stderr

"""Log lines: their fields, and that a failure to log never fails a request."""

import io
import json
import logging
import logging.config
import os
import subprocess
import sys

import pytest

from mes.logs import LineFormatter, StdoutHandler, configure, logconfig


@pytest.fixture
def root_logger():
    root = logging.getLogger()
    level, handlers = root.level, root.handlers[:]
    yield root
    root.setLevel(level)
    root.handlers[:] = handlers


def line(logger="mes.api", event="request", **extra):
    record = logging.getLogger(logger).makeRecord(
        logger, logging.INFO, __file__, 1, event, (), None, extra=extra
    )
    record.created = 1_700_000_000.25
    return json.loads(LineFormatter().format(record))


def test_a_line_has_time_level_event_and_its_extras():
    assert line(status=200, seconds=0.5) == {
        "time": "2023-11-14T22:13:20.250Z",
        "level": "INFO",
        "event": "request",
        "status": 200,
        "seconds": 0.5,
    }


def test_the_logger_is_named_if_it_is_not_one_of_mes():
    assert "logger" not in line("mes")
    assert line("urllib3.pool")["logger"] == "urllib3.pool"
    assert line("mesmerise")["logger"] == "mesmerise"


def test_an_extra_cannot_replace_a_field():
    assert line(level="DEBUG", time="never") == line()


@pytest.mark.parametrize("value", ["\ud800", 2**70, object(), {1, 2}, b"x", float("nan")])
def test_a_value_that_json_cannot_represent_is_written_too(value):
    assert line(value=value)["event"] == "request"


def test_a_traceback_is_one_line():
    try:
        raise ValueError("two\nlines")
    except ValueError:
        record = logging.getLogger("mes").makeRecord(
            "mes", logging.ERROR, __file__, 1, "failed", (), sys.exc_info()
        )
    text = LineFormatter().format(record)
    assert "\n" not in text
    assert "ValueError: two\nlines" in json.loads(text)["exc_info"]


def test_configuring_twice_writes_each_line_once(root_logger, capfd):
    configure("INFO")
    configure("INFO")
    logging.getLogger("mes.test").info("once", extra={"number": 1})
    logging.getLogger("mes.test").debug("never")
    (written,) = capfd.readouterr().out.splitlines()
    assert json.loads(written)["number"] == 1


def test_gunicorns_own_messages_become_lines(root_logger, capfd):
    logging.config.dictConfig(logconfig("INFO"))
    logging.getLogger("gunicorn.error").info("Listening at: %s", "http://127.0.0.1:8001")
    logging.getLogger("gunicorn.access").info("GET /")
    (written,) = capfd.readouterr().out.splitlines()
    entry = json.loads(written)
    assert entry["event"] == "Listening at: http://127.0.0.1:8001"
    assert entry["logger"] == "gunicorn.error"


def test_a_closed_standard_output_raises_nothing():
    program = (
        "import logging, os; from mes.logs import configure; configure('INFO')\n"
        "read, write = os.pipe(); os.dup2(write, 1); os.close(write); os.close(read)\n"
        "logging.getLogger('mes').info('into the void')\n"
        "os.close(1); logging.getLogger('mes').info('closed'); os._exit(7)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=20)
    assert (done.returncode, done.stderr) == (7, b"")


def test_a_full_disk_under_standard_output_raises_nothing():
    program = (
        "import logging, os; from mes.logs import configure; configure('INFO')\n"
        "os.dup2(os.open('/dev/full', os.O_WRONLY), 1)\n"
        "logging.getLogger('mes').info('no room'); os._exit(7)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=20)
    assert (done.returncode, done.stderr) == (7, b"")


def test_a_mistake_in_a_log_call_does_not_raise(monkeypatch):
    errors = io.StringIO()
    monkeypatch.setattr(sys, "stderr", errors)
    record = logging.makeLogRecord({"msg": "%d", "args": ("no number",)})
    handler = StdoutHandler()
    handler.setFormatter(LineFormatter())
    handler.handle(record)
    assert "TypeError" in errors.getvalue()


def test_lines_of_several_processes_never_interleave(tmp_path):
    program = (
        "import logging; from mes.logs import configure; configure('INFO')\n"
        "for n in range(300): logging.getLogger('mes').info('n', extra={'text': 'x' * 900})"
    )
    read, write = os.pipe()
    writers = [subprocess.Popen([sys.executable, "-c", program], stdout=write) for _ in range(3)]
    os.close(write)
    with open(read) as stream:
        lines = [json.loads(text) for text in stream]
    assert [writer.wait() for writer in writers] == [0, 0, 0]
    assert len(lines) == 900

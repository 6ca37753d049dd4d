"""Log lines: one JSON object each, to standard output."""

from __future__ import annotations

import json
import logging
import os
from datetime import UTC, datetime
from typing import Any

from pythonjsonlogger.orjson import OrjsonFormatter

_STDOUT = 1


class LineFormatter(OrjsonFormatter):
    """A record as one line: time, level, event, the logger where it is not ours, the extras."""

    # The library's own way to these fields takes half as long again.
    def add_fields(
        self, log_data: dict[str, Any], record: logging.LogRecord, message_dict: dict[str, Any]
    ) -> None:
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        log_data["time"] = time.replace("+00:00", "Z")
        log_data["level"] = record.levelname
        log_data["event"] = record.message
        if record.name.partition(".")[0] != "mes":
            log_data["logger"] = record.name
        for name, value in record.__dict__.items():
            if name not in self.reserved_attrs:
                log_data.setdefault(name, value)
        log_data.update(message_dict)

    def jsonify_log_record(self, log_data: dict[str, Any]) -> str:
        try:
            return super().jsonify_log_record(log_data)
        except TypeError:  # half a surrogate pair, or a number of more than 64 bits
            return json.dumps(log_data, default=repr)


class StdoutHandler(logging.Handler):
    """Writes each line with one system call, so that the lines of several workers never mix."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self.format(record) + "\n"
            _write(line.encode("utf-8", "backslashreplace"))
        except OSError:
            # Nobody reads our output any more, or its disk is full: requests matter more.
            pass
        except Exception:
            self.handleError(record)


def _write(data: bytes) -> None:
    while data:
        data = data[os.write(_STDOUT, data) :]


def configure(level: str) -> None:
    """Send the whole process's log lines to standard output. May be called again."""
    _leave_out_what_no_line_shows()
    root = logging.getLogger()
    root.setLevel(level)
    if any(isinstance(handler, StdoutHandler) for handler in root.handlers):
        return
    handler = StdoutHandler()
    handler.setFormatter(LineFormatter())
    root.addHandler(handler)


def _leave_out_what_no_line_shows() -> None:
    # Finding these out costs each line a walk up the stack and a system call.
    logging._srcfile = None
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False


def logconfig(level: str) -> dict[str, Any]:
    """The same for gunicorn, as its `logconfig_dict`: its own messages become such lines too.

    Its access log stays silent, for MES writes a better line about each request.
    """
    no_op: dict[str, Any] = {"level": level, "handlers": [], "propagate": True}
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"line": {"()": LineFormatter}},
        "handlers": {"stdout": {"()": StdoutHandler, "formatter": "line"}},
        "root": {"level": level, "handlers": ["stdout"]},
        "loggers": {
            "gunicorn.error": no_op,
            "gunicorn.access": {**no_op, "propagate": False},
        },
    }

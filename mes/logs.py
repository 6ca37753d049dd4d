"""Logging to standard output, one JSON object a line."""

from __future__ import annotations

import json
import logging
import os
from datetime import UTC, datetime
from typing import Any

from pythonjsonlogger.orjson import OrjsonFormatter

_STDOUT = 1


class LineFormatter(OrjsonFormatter):
    """Formats a record as one line: time, level, event and the extra fields.

    The logger's name is added if it is not one of MES.
    """

    # The base class takes half as long again for the same fields.
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
        except TypeError:  # a lone surrogate, or a number of more than 64 bits
            return json.dumps(log_data, default=repr)


class StdoutHandler(logging.Handler):
    """Writes each line with one system call, so that lines of several workers never interleave."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self.format(record) + "\n"
            _write(line.encode("utf-8", "backslashreplace"))
        except OSError:
            # The pipe is closed or the disk is full; requests are served without a log.
            pass
        except Exception:
            self.handleError(record)


def _write(data: bytes) -> None:
    while data:
        data = data[os.write(_STDOUT, data) :]


def configure(level: str) -> None:
    """Send all log lines of the process to standard output. Further calls only set the level."""
    _skip_unused_record_fields()
    root = logging.getLogger()
    root.setLevel(level)
    if any(isinstance(handler, StdoutHandler) for handler in root.handlers):
        return
    handler = StdoutHandler()
    handler.setFormatter(LineFormatter())
    root.addHandler(handler)


def _skip_unused_record_fields() -> None:
    # Each line would cost a walk up the stack and a system call for fields that are not written.
    logging._srcfile = None
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False


def logconfig(level: str) -> dict[str, Any]:
    """Return the same configuration for gunicorn's `logconfig_dict`, so that it logs such lines.

    Its access log is disabled, because MES logs each request with more detail.
    """
    propagate: dict[str, Any] = {"level": level, "handlers": [], "propagate": True}
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"line": {"()": LineFormatter}},
        "handlers": {"stdout": {"()": StdoutHandler, "formatter": "line"}},
        "root": {"level": level, "handlers": ["stdout"]},
        "loggers": {
            "gunicorn.error": propagate,
            "gunicorn.access": {**propagate, "propagate": False},
        },
    }

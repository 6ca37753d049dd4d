"""Settings: the environment, checked once and frozen."""

from __future__ import annotations

import difflib
import math
import os
import re
import reprlib
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dotenv.parser import parse_stream
from marshmallow import ValidationError

from mes.config.settings_schema import FIELDS, MOST_THREADS, NAMES, SettingsSchema

# Beside those who run or wait: health, status, models, and refusing whoever is too many.
_SPARE_THREADS = 16

# Read by the `mes` command alone, which may share a `.env` with the service.
_FOR_CLIENTS = frozenset({"MES_URL"})

# Kubernetes sets these by itself in every container beside a service that is called "mes".
_SET_BY_OTHERS = re.compile(r"MES_(SERVICE_(HOST|PORT(_\w+)?)|PORT(_\w+)?)")


class SettingsError(ValueError):
    """The settings do not hold; the text has one line a mistake: name, problem, remedy."""


@dataclass(frozen=True)
class Settings:
    """What the operator decided; made by `load`."""

    api_key: str | None = field(repr=False)
    api_keys_file: Path | None
    allow_dev_key: bool
    ollama_host: str
    host: str
    port: int
    log_level: str
    models_config_path: Path
    state_dir: Path
    max_loaded_models: int
    default_timeout_seconds: float
    max_timeout_seconds: float
    queue_timeout_seconds: float
    load_timeout_seconds: float
    unload_timeout_seconds: float
    load_retry_pause_seconds: float
    pull_timeout_seconds: float
    cooldown_seconds: float
    cooldown_max_seconds: float
    swap_patience_seconds: float | None
    swap_patience_min_seconds: float
    swap_patience_max_seconds: float
    max_model_memory_gb: float
    idle_unload_seconds: float
    stream_write_timeout_seconds: float
    workers: int
    threads: int
    graceful_timeout_seconds: int
    stop_notice_seconds: float
    max_body_bytes: int
    schema_max_bytes: int
    schema_max_depth: int
    schema_max_subschemas: int
    schema_max_properties: int
    schema_max_enum_values: int
    schema_max_patterns: int
    schema_max_pattern_length: int
    schema_max_fan_out: int
    metrics_open: bool
    trusted_proxies: int
    allowed_hosts: tuple[str, ...]

    @property
    def bind(self) -> str:
        """Where to listen, as gunicorn wants to be told."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def longest_request_seconds(self) -> int:
        """How long a request may last that nobody breaks off: its queue, its load, its answer."""
        waits = self.queue_timeout_seconds + 2 * self.load_timeout_seconds
        return math.ceil(waits + self.unload_timeout_seconds + self.max_timeout_seconds)

    def threads_for(self, capacity: int) -> int:
        """Threads of each worker: enough for all who may run or wait, and some for the rest."""
        return self.threads or min(capacity + _SPARE_THREADS, MOST_THREADS)


def load(environ: Mapping[str, str] | None = None, dotenv: str | None = ".env") -> Settings:
    """The settings from the environment, which wins, and from a `.env` file if there is one.

    An empty value counts as not set. Raises SettingsError, which tells all mistakes at once.
    """
    given, mistakes = _read(environ, dotenv)
    mistakes += _unknown_names(given)
    try:
        values = SettingsSchema().load({name: given[name] for name in NAMES if name in given})
    except ValidationError as exc:
        mistakes += _told(exc, given)
    if mistakes:
        raise SettingsError("\n".join(mistakes))
    return _settings(values, given)


def unchecked(
    environ: Mapping[str, str] | None = None, dotenv: str | None = ".env"
) -> dict[str, str]:
    """Names and texts as they were given, for programs beside the service."""
    return _read(environ, dotenv)[0]


def settings_table() -> list[tuple[str, str, str]]:
    """Name, default and help of every setting, for documents."""
    return [
        (each.data_key, each.metadata["default"], each.metadata["help"]) for each in FIELDS.values()
    ]


def _read(
    environ: Mapping[str, str] | None, dotenv: str | None
) -> tuple[dict[str, str], list[str]]:
    """What was given, and a line for each statement of the file that says nothing."""
    environ = os.environ if environ is None else environ
    from_file, mistakes = _read_dotenv(dotenv)
    given = {name: text.strip() for name, text in {**from_file, **environ}.items() if text.strip()}
    return given, mistakes


def _settings(values: dict[str, Any], environ: Mapping[str, str]) -> Settings:
    state_dir = values["state_dir"] or _default_state_dir(environ, values["port"])
    keys_file = values["api_keys_file"]
    computed = {
        "api_keys_file": Path(keys_file).expanduser() if keys_file else None,
        "allowed_hosts": tuple(values["allowed_hosts"]),
        "log_level": values["log_level"].upper(),
        "models_config_path": Path(values["models_config_path"]).expanduser(),
        "state_dir": Path(state_dir).expanduser().absolute(),
    }
    return Settings(**{**values, **computed})


def _default_state_dir(environ: Mapping[str, str], port: int) -> str:
    # In memory: each request replaces a small file there, which costs 1 ms on a disk.
    of_user = os.path.join(environ.get("XDG_RUNTIME_DIR", ""), f"mes-{port}")
    if _can_hold(of_user):
        return of_user
    of_machine = f"/dev/shm/mes-{os.getuid()}-{port}"
    if _can_hold(of_machine):
        return of_machine
    return os.path.join(tempfile.gettempdir(), os.path.basename(of_machine))


def _can_hold(path: str) -> bool:
    parent = os.path.dirname(path)
    return os.path.isdir(parent) and os.access(parent, os.W_OK | os.X_OK)


def _read_dotenv(path: str | None) -> tuple[dict[str, str], list[str]]:
    """The names and values of the file, and a line for each statement that says nothing."""
    if path is None or not os.path.exists(path):
        return {}, []
    try:
        with open(path, encoding="utf-8") as stream:
            bindings = list(parse_stream(stream))
    except (OSError, UnicodeDecodeError) as exc:
        return {}, [f"{path}: cannot be read ({exc}); mend or remove it"]
    values = {each.key: each.value for each in bindings if each.key and each.value is not None}
    return values, [
        f"{path}: line {each.original.line} is not NAME=value; mend or remove it"
        for each in bindings
        if each.error
    ]


def _unknown_names(given: Mapping[str, str]) -> list[str]:
    """A line for each MES_ name that nobody reads: most likely a known one, misspelt."""
    return [
        f"{name}: there is no such setting; {_nearest(name)}"
        for name in sorted(given)
        if name.startswith("MES_")
        and name not in _FOR_CLIENTS.union(NAMES)
        and not _SET_BY_OTHERS.fullmatch(name)
    ]


def _nearest(name: str) -> str:
    spelt = {**{f"MES_{known}": known for known in NAMES}, **{known: known for known in NAMES}}
    close = difflib.get_close_matches(name, spelt, n=1, cutoff=0.75)
    return f"did you mean {spelt[close[0]]}?" if close else "remove it"


def _told(exc: ValidationError, given: Mapping[str, str]) -> list[str]:
    problems = exc.messages_dict
    return [
        f"{name}: {_with_remedy(name, text, given)}" for name in problems for text in problems[name]
    ]


def _with_remedy(name: str, problem: str, given: Mapping[str, str]) -> str:
    if ";" in problem:  # a rule between settings, which names its own remedies
        return problem
    shown = "this value" if name == "MES_API_KEY" else reprlib.repr(given[name])
    default = FIELDS[NAMES[name]].metadata["default"]
    otherwise = f"leave it out for {default}" if default else "leave it out"
    return f"{shown} will not do; set {problem}, or {otherwise}"

"""Settings: read from the environment and `.env`, validated once at the start."""

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

from mes.config.settings_schema import (
    DEVELOPMENT_KEY,
    FIELDS,
    MAX_THREADS,
    NAMES,
    SettingsSchema,
    is_loopback,
)

# For health, status, models and refusals, in addition to the requests that run or wait.
_SPARE_THREADS = 16

# Only the `mes` command reads these; it may share a `.env` with the service.
_COMMAND_LINE_NAMES = frozenset({"MES_URL"})

# Kubernetes sets these in every container of a namespace with a service called "mes".
_KUBERNETES_NAMES = re.compile(r"MES_(SERVICE_(HOST|PORT(_\w+)?)|PORT(_\w+)?)")


# Addresses to listen on that are not addresses to connect to.
CONNECT_HOSTS = {"0.0.0.0": "127.0.0.1", "::": "::1"}


class SettingsError(ValueError):
    """A setting is invalid; each line of the text has a name, the problem and the remedy."""


@dataclass(frozen=True)
class Settings:
    """All settings of the service; `load` returns them."""

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
    lock_timeout_seconds: float
    idle_unload_seconds: float
    stream_write_timeout_seconds: float
    stream_keepalive_seconds: float
    workers: int
    threads: int
    graceful_timeout_seconds: int
    stop_notice_seconds: float
    max_body_bytes: int
    max_choices: int
    max_generations: int
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
    cors_origins: tuple[str, ...]

    @property
    def bind(self) -> str:
        """The address to listen on, in the form of gunicorn's `bind`."""
        return _address(self.host, self.port)

    @property
    def local_url(self) -> str:
        """The URL of the service for clients on this machine."""
        return f"http://{_address(CONNECT_HOSTS.get(self.host, self.host), self.port)}"

    @property
    def accepts_any_host(self) -> bool:
        """Whether requests are answered whatever name the Host header has.

        Only localhost is accepted where web pages of any name could reach the service without a
        secret key, or where it is for this machine alone. A proxy in front has names of its own.
        """
        is_public_key = self.api_key == DEVELOPMENT_KEY
        is_local = is_loopback(self.host) and not self.trusted_proxies
        return not (self.allowed_hosts or is_public_key or is_local)

    @property
    def longest_request_seconds(self) -> int:
        """The longest time of a request: its queue, unload and load of models, and generation."""
        waits = self.queue_timeout_seconds + 2 * self.load_timeout_seconds
        return math.ceil(waits + self.unload_timeout_seconds + self.max_timeout_seconds)

    def threads_for(self, capacity: int) -> int:
        """Return the number of threads of each worker.

        `capacity` is the number of requests that may run or wait; some threads are added for all
        other requests.
        """
        return self.threads or min(capacity + _SPARE_THREADS, MAX_THREADS)


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def load(environ: Mapping[str, str] | None = None, dotenv: str | None = ".env") -> Settings:
    """Return the settings from the environment and from a `.env` file, if there is one.

    The environment wins over the file. An empty value counts as not set.

    Args:
        environ: the environment; None for that of the process.
        dotenv: the path of the file; None for no file.

    Raises:
        SettingsError: a setting is invalid; the text lists all mistakes.
    """
    texts, mistakes = _read(environ, dotenv)
    mistakes += _unknown_names(texts)
    try:
        values = SettingsSchema().load({name: texts[name] for name in NAMES if name in texts})
    except ValidationError as exc:
        mistakes += _invalid_values(exc, texts)
    if mistakes:
        raise SettingsError("\n".join(mistakes))
    return _settings(values, texts)


def load_unchecked(
    environ: Mapping[str, str] | None = None, dotenv: str | None = ".env"
) -> dict[str, str]:
    """Return the texts of all set variables by name, without validation."""
    return _read(environ, dotenv)[0]


def setting_texts(settings: Settings) -> dict[str, str]:
    """Return the text of each setting by its name, without the API key; `load` reads them."""
    return {
        name: _text_of(getattr(settings, attribute), FIELDS[attribute].metadata["default"])
        for name, attribute in NAMES.items()
        if attribute != "api_key"
    }


def _text_of(value: Any, default: str) -> str:
    if value is None:  # `auto`, or not set
        return default
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return ",".join(value)
    return str(value.absolute() if isinstance(value, Path) else value)


def settings_table() -> list[tuple[str, str, str]]:
    """Return the name, default and help of every setting, for the documentation."""
    return [
        (field.data_key, field.metadata["default"], field.metadata["help"])
        for field in FIELDS.values()
    ]


def _read(
    environ: Mapping[str, str] | None, dotenv: str | None
) -> tuple[dict[str, str], list[str]]:
    """Return the texts by name, and a line for each mistake in the file."""
    environ = os.environ if environ is None else environ
    from_file, mistakes = _read_dotenv(dotenv)
    texts = {name: text.strip() for name, text in {**from_file, **environ}.items() if text.strip()}
    return texts, mistakes


def _settings(values: dict[str, Any], environ: Mapping[str, str]) -> Settings:
    state_dir = values["state_dir"] or _default_state_dir(environ, values["port"])
    keys_file = values["api_keys_file"]
    computed = {
        "api_keys_file": Path(keys_file).expanduser() if keys_file else None,
        "allowed_hosts": tuple(values["allowed_hosts"]),
        "cors_origins": tuple(values["cors_origins"]),
        "default_timeout_seconds": min(
            values["default_timeout_seconds"], values["max_timeout_seconds"]
        ),
        "log_level": values["log_level"].upper(),
        "models_config_path": Path(values["models_config_path"]).expanduser(),
        "state_dir": Path(state_dir).expanduser().absolute(),
    }
    return Settings(**{**values, **computed})


def _default_state_dir(environ: Mapping[str, str], port: int) -> str:
    # A folder in memory: each request replaces a small file there, which takes 1 ms on a disk.
    user_dir = os.path.join(environ.get("XDG_RUNTIME_DIR", ""), f"mes-{port}")
    if _parent_is_writable(user_dir):
        return user_dir
    shared_dir = f"/dev/shm/mes-{os.getuid()}-{port}"
    if _parent_is_writable(shared_dir):
        return shared_dir
    return os.path.join(tempfile.gettempdir(), os.path.basename(shared_dir))


def _parent_is_writable(path: str) -> bool:
    parent = os.path.dirname(path)
    return os.path.isdir(parent) and os.access(parent, os.W_OK | os.X_OK)


def _read_dotenv(path: str | None) -> tuple[dict[str, str], list[str]]:
    """Return the values of the file by name, and a line for each mistake in it."""
    if path is None or not os.path.exists(path):
        return {}, []
    try:
        with open(path, encoding="utf-8-sig") as stream:
            bindings = list(parse_stream(stream))
    except (OSError, UnicodeDecodeError) as exc:
        return {}, [f"{path}: cannot be read ({exc}); correct or remove it"]
    values = {line.key: line.value for line in bindings if line.key and line.value is not None}
    return values, [
        f"{path}: line {line.original.line} is not NAME=value; correct or remove it"
        for line in bindings
        if line.error
    ]


def _unknown_names(texts: Mapping[str, str]) -> list[str]:
    """Return a line for each unknown name with the prefix MES_, most likely a misspelt setting."""
    return [
        f"{name}: there is no such setting; {_suggestion(name)}"
        for name in sorted(texts)
        if name.startswith("MES_")
        and name not in _COMMAND_LINE_NAMES.union(NAMES)
        and not _KUBERNETES_NAMES.fullmatch(name)
    ]


def _suggestion(name: str) -> str:
    spellings = {**{f"MES_{known}": known for known in NAMES}, **{known: known for known in NAMES}}
    close = difflib.get_close_matches(name, spellings, n=1, cutoff=0.75)
    return f"did you mean {spellings[close[0]]}?" if close else "remove it"


def _invalid_values(exc: ValidationError, texts: Mapping[str, str]) -> list[str]:
    return [
        f"{name}: {_with_remedy(name, message, texts)}"
        for name, messages in exc.messages_dict.items()
        for message in messages
    ]


def _with_remedy(name: str, message: str, texts: Mapping[str, str]) -> str:
    """Return the message with the value and the remedy; it is the expected kind of value."""
    if ";" in message:  # a rule between settings, whose message has the remedy
        return message
    value = "this value" if name == "MES_API_KEY" else reprlib.repr(texts[name])
    default = FIELDS[NAMES[name]].metadata["default"]
    alternative = f"remove it for the default {default}" if default else "remove it"
    return f"{value} is invalid; set {message}, or {alternative}"

"""The list of all settings: the name, type, default, bounds and help of each."""

from __future__ import annotations

import re
from ipaddress import ip_address
from typing import Any

from marshmallow import (
    Schema,
    ValidationError,
    fields,
    pre_load,
    validate,
    validates,
    validates_schema,
)

from mes.errors import format_number

DEVELOPMENT_KEY = "mes-dev-key-123"
MAX_THREADS = 4096
_ONE_DAY_SECONDS = 86_400

_RUNTIME_ADDRESS = re.compile(
    r"((?P<scheme>https?)://)?(?P<host>\[[0-9a-f:.]+\]|[a-z0-9._-]*)(:(?P<port>\d{1,5}))?"
    r"(?P<path>(/[a-z0-9._~-]+)*)/*",
    re.IGNORECASE,
)

_HOST_NAME = re.compile(r"\.?[a-z0-9-]+(\.[a-z0-9-]+)*")

# Such as x86_64-conda-linux-gnu and arm64-apple-darwin20.0.0.
_PLATFORM = re.compile(r"(x86_64|aarch64|arm64|powerpc64le|ppc64le)-\w+-")
# "*" and "null" are no origins: with them every page that a user opens could reach the service.
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(:\d{1,5})?")
_DEFAULT_PORTS = {"http": ":80", "https": ":443"}
# OLLAMA_HOST may be the address that Ollama listens on; clients connect to these instead.
_CONNECT_ADDRESSES = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "[::]": "[::1]"}


class RuntimeAddress(fields.String):
    """OLLAMA_HOST in any form that Ollama accepts; loads as a URL without a trailing slash."""

    def _deserialize(self, value: Any, attr: Any, data: Any, **kwargs: Any) -> str:
        text = _bracketed(super()._deserialize(value, attr, data, **kwargs).strip())
        match = _RUNTIME_ADDRESS.fullmatch(text)
        if match is None or int(match["port"] or 1) not in range(1, 65_536):
            raise self.make_error("invalid")
        scheme = (match["scheme"] or "").lower()
        # The rule of Ollama: a URL has the default port of its scheme, a bare host has port 11434.
        port = match["port"] or {"http": "80", "https": "443"}.get(scheme, "11434")
        host = _CONNECT_ADDRESSES.get(match["host"], match["host"])
        return f"{scheme or 'http'}://{host}:{port}{match['path']}"


class AutoSeconds(fields.Field[float | None]):
    """A number of seconds, or the word auto, which loads as None."""

    def _deserialize(self, value: Any, attr: Any, data: Any, **kwargs: Any) -> float | None:
        if str(value).strip().lower() == "auto":
            return None
        try:
            seconds = float(value)
        except ValueError as exc:
            raise self.make_error("invalid") from exc
        if not 0 <= seconds <= _ONE_DAY_SECONDS:
            raise self.make_error("invalid")
        return seconds


class HostNames(fields.String):
    """Host names separated by commas or spaces; loads as a tuple."""

    def _deserialize(self, value: Any, attr: Any, data: Any, **kwargs: Any) -> Any:
        text = super()._deserialize(value, attr, data, **kwargs).lower()
        names = tuple(text.replace(",", " ").split())
        if not all(_HOST_NAME.fullmatch(name) for name in names):
            raise self.make_error("invalid")
        return names


class Origins(fields.String):
    """Origins of web pages separated by commas or spaces, as browsers send them."""

    def _deserialize(self, value: Any, attr: Any, data: Any, **kwargs: Any) -> Any:
        text = super()._deserialize(value, attr, data, **kwargs).lower()
        origins = text.replace(",", " ").split()
        if not all(_ORIGIN.fullmatch(each) for each in origins):
            raise self.make_error("invalid")
        return tuple(map(_without_default_port, origins))


def _without_default_port(origin: str) -> str:
    """Return the origin as browsers write it."""
    return origin.removesuffix(_DEFAULT_PORTS.get(origin.partition("://")[0], ""))


def _bracketed(text: str) -> str:
    try:
        return f"[{text}]" if ip_address(text).version == 6 else text
    except ValueError:
        return text


def is_loopback(host: str) -> bool:
    """Return whether only this machine can connect to a service that listens on `host`."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _setting(kind: Any, name: str, default: Any, expected: str, help: str, **options: Any) -> Any:
    """Return a field whose only error message is the kind of value that it expects."""
    messages = dict.fromkeys(("invalid", "too_large", "special", "invalid_utf8"), expected)
    return kind(
        data_key=name,
        load_default=default,
        error_messages=messages,
        metadata={"help": help, "default": _format_default(default)},
        **options,
    )


def _format_default(default: Any) -> str:
    if default is None:
        return "auto"
    if isinstance(default, float):
        return format_number(default)
    return str(default).replace("False", "false")


def _text(name: str, default: str, expected: str, pattern: str, help: str, **options: Any) -> Any:
    check = validate.Regexp(rf"(?:{pattern})\Z", error=expected)
    return _setting(fields.String, name, default, expected, help, validate=check, **options)


def _integer(name: str, default: int, minimum: int, maximum: int, help: str) -> Any:
    expected = f"a whole number from {minimum} to {maximum}"
    check = validate.Range(minimum, maximum, error=expected)
    return _setting(fields.Integer, name, default, expected, help, validate=check)


def _seconds(name: str, default: float, help: str, *, or_zero: bool = False) -> Any:
    expected = f"a number of seconds {'from 0' if or_zero else 'above 0'} to {_ONE_DAY_SECONDS}"
    check = validate.Range(0, _ONE_DAY_SECONDS, min_inclusive=or_zero, error=expected)
    return _setting(fields.Float, name, default, expected, f"{help} (seconds)", validate=check)


# fmt: off
class SettingsSchema(Schema):
    """Loads the texts of the environment as the values of `settings.Settings`."""

    api_key = _text("MES_API_KEY", DEVELOPMENT_KEY,
        "1 to 512 visible ASCII characters", "[!-~]{1,512}",
        "The API key of the clients, with all scopes. The default is for development on one "
        "machine, and valid only without MES_API_KEYS_FILE", allow_none=True)
    api_keys_file = _setting(fields.String, "MES_API_KEYS_FILE", "", "a path",
        "The file with several API keys, their names and scopes; `mes key new` creates it")
    allow_dev_key = _setting(fields.Boolean, "MES_ALLOW_DEV_KEY", False, "true or false",
        "Allow the development key although other machines can reach the service")
    ollama_host = _setting(RuntimeAddress, "OLLAMA_HOST", "http://ollama:11434",
        "a URL such as http://ollama:11434, or host:port",
        "The address of Ollama: a URL or host:port")
    host = _text("HOST", "127.0.0.1", "an address or a host name",
        r"[A-Za-z0-9._-]+|[0-9A-Fa-f:.]+", "The address to listen on; 0.0.0.0 for all addresses")
    port = _integer("PORT", 8001, 1, 65_535, "The port to listen on")
    log_level = _text("LOG_LEVEL", "INFO", "one of DEBUG, INFO, WARNING, ERROR",
        "(?i:DEBUG|INFO|WARNING|ERROR)", "The lowest level that is logged")
    models_config_path = _text("MODELS_CONFIG_PATH", "config/models.json", "a path", r"[^\0]+",
        "The file with the catalog: the models that may be run, and their options")
    state_dir = _setting(fields.String, "STATE_DIR", "", "a path",
        "The folder for the state that the workers share; it should be in memory, and no other "
        "service may use it. Default: mes-<port> in $XDG_RUNTIME_DIR, else mes-<uid>-<port> in "
        "/dev/shm")
    max_loaded_models = _integer("MAX_LOADED_MODELS", 2, 1, 64,
        "The maximum number of models in memory at a time")
    default_timeout_seconds = _seconds("DEFAULT_TIMEOUT", 600.0,
        "The timeout of a generation if neither the request nor the catalog sets one")
    max_timeout_seconds = _seconds("MAX_TIMEOUT", 3600.0,
        "The longest timeout that a request may set")
    queue_timeout_seconds = _seconds("QUEUE_TIMEOUT", 300.0,
        "The longest time that a request waits in the queue")
    load_timeout_seconds = _seconds("LOAD_TIMEOUT", 300.0, "The longest time for loading a model")
    unload_timeout_seconds = _seconds("UNLOAD_TIMEOUT", 30.0,
        "The longest time for unloading a model, and for the running requests to end before an "
        "unload that a client asked for")
    load_retry_pause_seconds = _seconds("LOAD_RETRY_PAUSE", 1.0,
        "The pause before a failed load is tried again", or_zero=True)
    pull_timeout_seconds = _seconds("PULL_TIMEOUT", 14_400.0,
        "The longest time for pulling a model; the next pull continues with the data received")
    cooldown_seconds = _seconds("COOLDOWN", 10.0,
        "The time after a failed load in which the model is not loaded again; it doubles with each "
        "failure")
    cooldown_max_seconds = _seconds("COOLDOWN_MAX", 300.0,
        "The longest cooldown after repeated failures")
    swap_patience_seconds = _setting(AutoSeconds, "SWAP_PATIENCE", None,
        f"auto or a number of seconds from 0 to {_ONE_DAY_SECONDS}",
        "How long requests for loaded models may overtake a request whose model must first replace "
        "another (seconds); auto: ten times the slowest load for each waiting model, between "
        "SWAP_PATIENCE_MIN and SWAP_PATIENCE_MAX")
    swap_patience_min_seconds = _seconds("SWAP_PATIENCE_MIN", 20.0,
        "The lower bound of SWAP_PATIENCE=auto", or_zero=True)
    swap_patience_max_seconds = _seconds("SWAP_PATIENCE_MAX", 300.0,
        "The upper bound of SWAP_PATIENCE=auto")
    max_model_memory_gb = _setting(fields.Float, "MAX_MODEL_MEMORY_GB", 0.0,
        "a number of gigabytes from 0 to 100000",
        "The maximum memory for all loaded models together; 0 for no limit (gigabytes)",
        validate=validate.Range(0, 100_000, error="a number of gigabytes from 0 to 100000"))
    lock_timeout_seconds = _seconds("LOCK_TIMEOUT", 5.0,
        "The longest wait for a process that holds a lock, such as that on the shared state")
    idle_unload_seconds = _seconds("IDLE_UNLOAD", 0.0,
        "Unload a model that has had no request for this time; 0 for never", or_zero=True)
    stream_write_timeout_seconds = _seconds("STREAM_WRITE_TIMEOUT", 30.0,
        "The longest time for a client to read one line of a stream or 64 KiB of any answer, and "
        "the longest total delay of a generation by a slow client")
    stream_keepalive_seconds = _seconds("STREAM_KEEPALIVE", 15.0,
        "The silence in a stream of server-sent events after which a comment is sent, so that "
        "proxies do not close the connection; 0 for never", or_zero=True)
    workers = _integer("WEB_CONCURRENCY", 4, 1, 64, "The number of worker processes")
    threads = _integer("THREADS", 0, 0, MAX_THREADS,
        "The number of threads in each worker; 0 to compute it from the catalog")
    graceful_timeout_seconds = _integer("GRACEFUL_TIMEOUT", 30, 1, _ONE_DAY_SECONDS,
        "How long a stopping service waits for running requests (seconds)")
    stop_notice_seconds = _seconds("STOP_NOTICE", 0.0,
        "How long /ready answers 503 before a stopping service refuses requests, so that a load "
        "balancer notices", or_zero=True)
    max_body_bytes = _integer("MAX_BODY_BYTES", 32 << 20, 1 << 10, 1 << 30,
        "The maximum size of a request body (bytes)")
    max_choices = _integer("MAX_CHOICES", 8, 1, 16,
        "The maximum number of choices for one prompt (n)")
    max_generations = _integer("MAX_GENERATIONS", 256, 16, 2048,
        "The maximum number of generations of one request: its prompts times n")
    schema_max_bytes = _integer("SCHEMA_MAX_BYTES", 128 << 10, 1 << 10, 1 << 20,
        "The maximum size of a json_schema (bytes)")
    schema_max_depth = _integer("SCHEMA_MAX_DEPTH", 32, 1, 64,
        "The maximum nesting depth of the sub-schemas in a json_schema")
    schema_max_subschemas = _integer("SCHEMA_MAX_SUBSCHEMAS", 5000, 1, 50_000,
        "The maximum number of sub-schemas in a json_schema")
    schema_max_properties = _integer("SCHEMA_MAX_PROPERTIES", 512, 1, 10_000,
        "The maximum number of properties in one sub-schema")
    schema_max_enum_values = _integer("SCHEMA_MAX_ENUM_VALUES", 2000, 1, 20_000,
        "The maximum number of values in one enum")
    schema_max_patterns = _integer("SCHEMA_MAX_PATTERNS", 256, 0, 5000,
        "The maximum number of patterns in a json_schema")
    schema_max_pattern_length = _integer("SCHEMA_MAX_PATTERN_LENGTH", 2048, 1, 65_536,
        "The maximum number of characters in one pattern")
    schema_max_fan_out = _integer("SCHEMA_MAX_FAN_OUT", 10_000, 1, 1_000_000,
        "The maximum number of sub-schemas that apply to the same value")
    metrics_open = _setting(fields.Boolean, "METRICS_OPEN", False, "true or false",
        "Serve GET /metrics without an API key")
    trusted_proxies = _integer("TRUSTED_PROXIES", 0, 0, 8,
        "The number of proxies in front that append to X-Forwarded-For; 0 to ignore the header")
    allowed_hosts = _setting(HostNames, "ALLOWED_HOSTS", "",
        "host names without port, such as mes.example,.example.org",
        "The accepted names in the Host header, separated by commas, in addition to localhost, "
        "127.0.0.0/8 and [::1]; a leading dot includes all subdomains. Default: with the "
        "development key, or on loopback without TRUSTED_PROXIES, no others; else any name")
    cors_origins = _setting(Origins, "CORS_ORIGINS", "",
        "origins with scheme and without path, such as https://app.example,http://localhost:3000",
        "The origins whose web pages may call the service from a browser, separated by commas; not "
        "with the development key. Default: none")
    # fmt: on

    @pre_load
    def _drop_development_key_beside_file(self, data: Any, **_: Any) -> Any:
        return {"MES_API_KEY": None, **data} if data.get("MES_API_KEYS_FILE") else data

    @validates("host")
    def _check_host_is_no_platform(self, host: str, **_: Any) -> None:
        if _PLATFORM.match(host):
            problem = f"{host} is a platform, which conda's compilers export as HOST"
            raise ValidationError(f"{problem}; run `unset HOST`, or set HOST to 127.0.0.1")

    @validates_schema(skip_on_field_errors=False)
    def _check_development_key_is_local(self, data: dict[str, Any], **_: Any) -> None:
        exposed = "host" in data and not is_loopback(data["host"])
        if exposed and data.get("api_key") == DEVELOPMENT_KEY and not data.get("allow_dev_key"):
            problem = (
                "the development key is public, and other machines can connect to "
                f"HOST={data['host']}"
            )
            remedy = (
                "set MES_API_KEY to a key of your own, or MES_API_KEYS_FILE, or HOST to 127.0.0.1, "
                "or MES_ALLOW_DEV_KEY to true to allow this"
            )
            raise ValidationError(f"{problem}; {remedy}", "MES_API_KEY")

    @validates_schema(skip_on_field_errors=False)
    def _check_browsers_have_a_secret_key(self, data: dict[str, Any], **_: Any) -> None:
        if data.get("cors_origins") and data.get("api_key") == DEVELOPMENT_KEY:
            problem = "the development key is public, and browsers of other users could send it"
            remedy = "set MES_API_KEY to a key of your own, or MES_API_KEYS_FILE, or remove it"
            raise ValidationError(f"{problem}; {remedy}", "CORS_ORIGINS")

    @validates_schema(skip_on_field_errors=False, pass_original=True)
    def _check_values_are_within_maxima(self, data: Any, original: Any, **_: Any) -> None:
        is_set = "DEFAULT_TIMEOUT" in original  # the default is lowered to MAX_TIMEOUT
        errors = {
            **(_excess(data, "default_timeout_seconds", "max_timeout_seconds") if is_set else {}),
            **_excess(data, "cooldown_seconds", "cooldown_max_seconds"),
            **_excess(data, "swap_patience_min_seconds", "swap_patience_max_seconds"),
        }
        if errors:
            raise ValidationError(errors)


def _excess(data: dict[str, Any], attribute: str, maximum: str) -> dict[str, list[str]]:
    """Return the message about a value above its maximum by name, or nothing."""
    value, limit = data.get(attribute), data.get(maximum)
    if value is None or limit is None or value <= limit:
        return {}
    name, maximum_name = FIELDS[attribute].data_key, FIELDS[maximum].data_key
    problem = f"{format_number(value)} is more than {maximum_name}={format_number(limit)}"
    return {str(name): [f"{problem}; lower it, or raise {maximum_name}"]}


FIELDS: dict[str, Any] = SettingsSchema().fields
NAMES: dict[str, str] = {field.data_key: attribute for attribute, field in FIELDS.items()}

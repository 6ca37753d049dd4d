"""The one list of settings: name, type, default, bounds and help of each."""

from __future__ import annotations

import re
from ipaddress import ip_address
from typing import Any

from marshmallow import Schema, ValidationError, fields, pre_load, validate, validates_schema

DEVELOPMENT_KEY = "mes-dev-key-123"
MOST_THREADS = 1000
_A_DAY = 86_400

_RUNTIME_ADDRESS = re.compile(
    r"((?P<scheme>https?)://)?(?P<host>\[[0-9a-f:.]+\]|[a-z0-9._-]*)(:(?P<port>\d{1,5}))?"
    r"(?P<path>(/[a-z0-9._~-]+)*)/*",
    re.IGNORECASE,
)

_HOST_NAME = re.compile(r"\.?[a-z0-9-]+(\.[a-z0-9-]+)*")

# Addresses to listen on, which a client can call only by luck.
_TO_CALL = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "[::]": "[::1]"}


class RuntimeAddress(fields.String):
    """OLLAMA_HOST in any of Ollama's own forms, as a URL without trailing slash."""

    def _deserialize(self, value: Any, attr: Any, data: Any, **kwargs: Any) -> str:
        text = _bracketed(super()._deserialize(value, attr, data, **kwargs).strip())
        match = _RUNTIME_ADDRESS.fullmatch(text)
        if match is None or int(match["port"] or 1) not in range(1, 65_536):
            raise self.make_error("invalid")
        scheme = (match["scheme"] or "").lower()
        # As Ollama reads it: http://host is port 80, and only a bare host is its own port.
        port = match["port"] or {"http": "80", "https": "443"}.get(scheme, "11434")
        host = _TO_CALL.get(match["host"], match["host"])
        return f"{scheme or 'http'}://{host}:{port}{match['path']}"


class AutoSeconds(fields.Field[float | None]):
    """A number of seconds, or the word auto, which becomes None."""

    def _deserialize(self, value: Any, attr: Any, data: Any, **kwargs: Any) -> float | None:
        if str(value).strip().lower() == "auto":
            return None
        try:
            seconds = float(value)
        except ValueError as exc:
            raise self.make_error("invalid") from exc
        if not 0 <= seconds <= _A_DAY:
            raise self.make_error("invalid")
        return seconds


class HostNames(fields.String):
    """Host names with commas or blanks between, as a tuple."""

    def _deserialize(self, value: Any, attr: Any, data: Any, **kwargs: Any) -> Any:
        text = super()._deserialize(value, attr, data, **kwargs).lower()
        names = tuple(text.replace(",", " ").split())
        if not all(_HOST_NAME.fullmatch(name) for name in names):
            raise self.make_error("invalid")
        return names


def _bracketed(text: str) -> str:
    try:
        return f"[{text}]" if ip_address(text).version == 6 else text
    except ValueError:
        return text


def is_loopback(host: str) -> bool:
    """Can only this machine reach what listens there?"""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _setting(kind: Any, name: str, default: Any, expects: str, help: str, **more: Any) -> Any:
    """A field with one message, whichever way its value is wrong: what it should have been."""
    wrong = dict.fromkeys(("invalid", "too_large", "special", "invalid_utf8"), expects)
    return kind(
        data_key=name,
        load_default=default,
        error_messages=wrong,
        metadata={"help": help, "default": _as_written(default)},
        **more,
    )


def _as_written(default: Any) -> str:
    if default is None:
        return "auto"
    return f"{default:g}" if isinstance(default, float) else str(default).replace("False", "false")


def _text(name: str, default: str, expects: str, pattern: str, help: str, **more: Any) -> Any:
    check = validate.Regexp(rf"(?:{pattern})\Z", error=expects)
    return _setting(fields.String, name, default, expects, help, validate=check, **more)


def _whole(name: str, default: int, least: int, most: int, help: str) -> Any:
    expects = f"a whole number from {least} to {most}"
    check = validate.Range(least, most, error=expects)
    return _setting(fields.Integer, name, default, expects, help, validate=check)


def _seconds(name: str, default: float, help: str, *, or_zero: bool = False) -> Any:
    expects = f"a number of seconds {'from 0' if or_zero else 'above 0'} to {_A_DAY}"
    check = validate.Range(0, _A_DAY, min_inclusive=or_zero, error=expects)
    return _setting(fields.Float, name, default, expects, f"{help} (seconds)", validate=check)


# fmt: off
class SettingsSchema(Schema):
    """The environment's names and texts -> the values of `settings.Settings`."""

    api_key = _text("MES_API_KEY", DEVELOPMENT_KEY,
        "1 to 512 visible ASCII characters", "[!-~]{1,512}",
        "The key that callers show. The default is for development on one's own machine, and holds "
        "only without MES_API_KEYS_FILE", allow_none=True)
    api_keys_file = _setting(fields.String, "MES_API_KEYS_FILE", "", "a path",
        "Several keys with names and scopes: a file that `mes key new` makes")
    allow_dev_key = _setting(fields.Boolean, "MES_ALLOW_DEV_KEY", False, "true or false",
        "Allow the development key although others can reach the service")
    ollama_host = _setting(RuntimeAddress, "OLLAMA_HOST", "http://ollama:11434",
        "a URL such as http://ollama:11434, or host:port",
        "Where Ollama listens: a URL or host:port")
    host = _text("HOST", "127.0.0.1", "an address or a host name",
        r"[A-Za-z0-9._-]+|[0-9A-Fa-f:.]+", "The address to listen on; 0.0.0.0 for all")
    port = _whole("PORT", 8001, 1, 65_535, "The port to listen on")
    log_level = _text("LOG_LEVEL", "INFO", "one of DEBUG, INFO, WARNING, ERROR",
        "(?i:DEBUG|INFO|WARNING|ERROR)", "The least important level that is logged")
    models_config_path = _text("MODELS_CONFIG_PATH", "config/models.json", "a path", r"[^\0]+",
        "The catalog: which models may be run, and how")
    state_dir = _setting(fields.String, "STATE_DIR", "", "a path",
        "The folder where the workers agree, in memory and this service's own. Without it: "
        "mes-<port> in $XDG_RUNTIME_DIR, else mes-<uid>-<port> in /dev/shm")
    max_loaded_models = _whole("MAX_LOADED_MODELS", 2, 1, 64,
        "How many models may be in memory at a time")
    default_timeout_seconds = _seconds("DEFAULT_TIMEOUT", 30.0,
        "How long a generation may last if neither the caller nor the catalog says")
    max_timeout_seconds = _seconds("MAX_TIMEOUT", 3600.0, "The longest timeout a caller may set")
    queue_timeout_seconds = _seconds("QUEUE_TIMEOUT", 300.0, "How long a request may wait its turn")
    load_timeout_seconds = _seconds("LOAD_TIMEOUT", 300.0, "How long loading a model may take")
    unload_timeout_seconds = _seconds("UNLOAD_TIMEOUT", 30.0,
        "How long an unload may take, and a drain asked for by a person")
    load_retry_pause_seconds = _seconds("LOAD_RETRY_PAUSE", 1.0,
        "The pause before a failed load is tried once more", or_zero=True)
    pull_timeout_seconds = _seconds("PULL_TIMEOUT", 14_400.0,
        "How long pulling a model may take; what has come by then need not come again")
    cooldown_seconds = _seconds("COOLDOWN", 10.0,
        "How long a model that fails to load is left alone; doubles with each failure")
    cooldown_max_seconds = _seconds("COOLDOWN_MAX", 300.0, "The longest that it is left alone")
    swap_patience_seconds = _setting(AutoSeconds, "SWAP_PATIENCE", None,
        f"auto or a number of seconds from 0 to {_A_DAY}",
        "How long requests for loaded models may overtake one that needs a swap (seconds); auto: "
        "ten times the slowest load for each model in line, within the two bounds")
    swap_patience_min_seconds = _seconds("SWAP_PATIENCE_MIN", 20.0, "The least that auto makes it",
        or_zero=True)
    swap_patience_max_seconds = _seconds("SWAP_PATIENCE_MAX", 300.0, "The most that auto makes it")
    max_model_memory_gb = _setting(fields.Float, "MAX_MODEL_MEMORY_GB", 0.0,
        "a number of gigabytes from 0 to 100000",
        "How much memory all loaded models may take up together; 0 for no limit (gigabytes)",
        validate=validate.Range(0, 100_000, error="a number of gigabytes from 0 to 100000"))
    idle_unload_seconds = _seconds("IDLE_UNLOAD", 0.0,
        "Unload a model that nobody used for so long; 0 for never", or_zero=True)
    stream_write_timeout_seconds = _seconds("STREAM_WRITE_TIMEOUT", 30.0,
        "How long a client may take to read a line of a stream, and hold up a generation at most")
    workers = _whole("WEB_CONCURRENCY", 4, 1, 64, "Worker processes")
    threads = _whole("THREADS", 0, 0, MOST_THREADS,
        "Threads in each worker; 0 to compute them from the catalog")
    graceful_timeout_seconds = _whole("GRACEFUL_TIMEOUT", 30, 1, _A_DAY,
        "How long a stop waits for running requests (seconds)")
    stop_notice_seconds = _seconds("STOP_NOTICE", 0.0,
        "How long /ready says no before a stop refuses requests, for a load balancer to see it",
        or_zero=True)
    max_body_bytes = _whole("MAX_BODY_BYTES", 1 << 20, 1 << 10, 1 << 30,
        "The largest request body that is read")
    schema_max_bytes = _whole("SCHEMA_MAX_BYTES", 128 << 10, 1 << 10, 1 << 20,
        "The longest json_schema that is taken")
    schema_max_depth = _whole("SCHEMA_MAX_DEPTH", 32, 1, 64,
        "How deep its sub-schemas may be nested")
    schema_max_subschemas = _whole("SCHEMA_MAX_SUBSCHEMAS", 5000, 1, 50_000,
        "How many sub-schemas it may have")
    schema_max_properties = _whole("SCHEMA_MAX_PROPERTIES", 512, 1, 10_000,
        "How many properties one object of it may declare")
    schema_max_enum_values = _whole("SCHEMA_MAX_ENUM_VALUES", 2000, 1, 20_000,
        "How many values one enum of it may list")
    schema_max_patterns = _whole("SCHEMA_MAX_PATTERNS", 256, 0, 5000,
        "How many patterns it may have")
    schema_max_pattern_length = _whole("SCHEMA_MAX_PATTERN_LENGTH", 2048, 1, 65_536,
        "How many characters one pattern may have")
    schema_max_fan_out = _whole("SCHEMA_MAX_FAN_OUT", 10_000, 1, 1_000_000,
        "How many of its sub-schemas may judge one and the same value")
    metrics_open = _setting(fields.Boolean, "METRICS_OPEN", False, "true or false",
        "Answer GET /metrics without a key")
    trusted_proxies = _whole("TRUSTED_PROXIES", 0, 0, 8,
        "How many proxies stand in front and add to X-Forwarded-For; 0 to believe nobody")
    allowed_hosts = _setting(HostNames, "ALLOWED_HOSTS", "",
        "host names without port, such as mes.example,.example.org",
        "The names in the Host header that are answered, beside localhost; a leading dot for all "
        "below. Without it: any")
    # fmt: on

    @pre_load
    def _the_development_key_gives_way_to_a_file(self, data: Any, **_: Any) -> Any:
        return {"MES_API_KEY": None, **data} if data.get("MES_API_KEYS_FILE") else data

    @validates_schema(skip_on_field_errors=False)
    def _the_development_key_stays_at_home(self, data: dict[str, Any], **_: Any) -> None:
        exposed = "host" in data and not is_loopback(data["host"])
        if exposed and data.get("api_key") == DEVELOPMENT_KEY and not data.get("allow_dev_key"):
            problem = f"the development key is public, and HOST={data['host']} lets others in"
            remedy = (
                "set MES_API_KEY to a key of your own, or MES_API_KEYS_FILE, or HOST to 127.0.0.1, "
                "or MES_ALLOW_DEV_KEY to true if it is meant"
            )
            raise ValidationError(f"{problem}; {remedy}", "MES_API_KEY")

    @validates_schema(skip_on_field_errors=False)
    def _defaults_are_within_their_maxima(self, data: dict[str, Any], **_: Any) -> None:
        errors = {
            **_excess(data, "default_timeout_seconds", "max_timeout_seconds"),
            **_excess(data, "cooldown_seconds", "cooldown_max_seconds"),
            **_excess(data, "swap_patience_min_seconds", "swap_patience_max_seconds"),
        }
        if errors:
            raise ValidationError(errors)


def _excess(data: dict[str, Any], attribute: str, maximum: str) -> dict[str, list[str]]:
    value, limit = data.get(attribute), data.get(maximum)
    if value is None or limit is None or value <= limit:
        return {}
    name, most = FIELDS[attribute].data_key, FIELDS[maximum].data_key
    return {str(name): [f"{value:g} is more than {most}={limit:g}; lower it, or raise {most}"]}


FIELDS: dict[str, Any] = SettingsSchema().fields
NAMES: dict[str, str] = {each.data_key: attribute for attribute, each in FIELDS.items()}

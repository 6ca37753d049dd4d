"""The configuration that `mes check` checks: that of the running service, else that of here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mes.cli.checks import Findings, ok, warn
from mes.cli.client import CommandError, MesClient, Target
from mes.config import settings
from mes.config.settings import Settings
from mes.config.settings_schema import DEVELOPMENT_KEY, NAMES

# The service does not show its key, and the others are its address.
_NOT_COMPARED = ("MES_API_KEY", "HOST", "PORT")

_KEY_WITHOUT_SCOPE = [
    warn(
        "settings",
        "those of this shell are checked, because the key has no scope admin; "
        "set --key or MES_API_KEY to one that has, to check those of the running service",
    )
]


@dataclass(frozen=True)
class Configuration:
    """Settings to check.

    Attributes:
        settings: the settings of the service.
        environment: texts by name, also of the runtime's settings.
        is_running: whether a running service uses them.
    """

    settings: Settings
    environment: Mapping[str, str]
    is_running: bool


def local_configuration() -> Configuration:
    """Return the settings of a service that is started here. Raises SettingsError."""
    return Configuration(settings.load(), settings.load_unchecked(), is_running=False)


def running_configuration(target: Target) -> tuple[Configuration | None, Findings]:
    """Return the settings of the running service, or None and findings if it shows none."""
    try:
        answer = MesClient(target).get("/v1/settings", required_field="settings")
        return _configuration(answer), iter(())
    except CommandError as exc:
        return None, iter(_KEY_WITHOUT_SCOPE if exc.code == "forbidden" else ())
    except settings.SettingsError:
        return None, iter(())  # of another version, which a later finding reports


def _configuration(answer: Mapping[str, Any]) -> Configuration:
    texts = {name: text for name, text in answer["settings"].items() if name in NAMES}
    # In place of a key that the service keeps to itself.
    key = DEVELOPMENT_KEY if answer.get("development_key") else "unknown"
    loaded = settings.load({**texts, "MES_API_KEY": key}, dotenv=None)
    environment = {**texts, **(answer.get("runtime_settings") or {})}
    return Configuration(loaded, environment, is_running=True)


def source_findings(configuration: Configuration, here: Configuration | None) -> Findings:
    """Yield that the settings of a running service are checked, and those that differ here."""
    if not configuration.is_running:
        return
    yield ok("settings", "the running service uses those below")
    if here is None:
        return
    for name in sorted(here.environment.keys() & set(NAMES) - set(_NOT_COMPARED)):
        used, wanted = (_text(each.settings, name) for each in (configuration, here))
        if used != wanted:
            problem = f"{name} is {wanted} here, but the running service uses {used}"
            yield warn("settings", f"{problem}; restart it for the change, or unset {name}")


def _text(loaded: Settings, name: str) -> str:
    return settings.setting_texts(loaded)[name] or "not set"

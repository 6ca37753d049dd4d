"""The service that a command talks to, from --url and --key before or after the command."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any

import click

from mes.cli.client import Target
from mes.config import settings
from mes.config.settings_schema import DEVELOPMENT_KEY

Command = Callable[..., Any]

_URL, _KEY = "mes.url", "mes.key"


def target_options(command: Command) -> Command:
    """Add --url and --key to a command or a group of commands; the last value of each counts."""
    url = click.option(
        *("--url", "url"),
        metavar="URL",
        help="Address of MES. [MES_URL; else from HOST and PORT]",
        expose_value=False,
        callback=_remember(_URL),
    )
    key = click.option(
        *("--key", "key"),
        help="API key. Other users of the machine can see it; MES_API_KEY is safer.",
        expose_value=False,
        callback=_remember(_KEY),
    )
    return url(key(command))


def pass_target(command: Command) -> Command:
    """Add --url and --key to a command, and pass the `Target` as its first argument."""

    @target_options
    @wraps(command)
    def with_target(*args: Any, **kwargs: Any) -> Any:
        return command(current_target(click.get_current_context()), *args, **kwargs)

    return with_target


def current_target(context: click.Context) -> Target:
    """Return the target that the options of the command line and the environment name."""
    return find_target(context.meta.get(_URL), context.meta.get(_KEY))


def find_target(url: str | None, key: str | None) -> Target:
    """Return the target given by the options, else by the environment, else the local service.

    The settings are read unchecked: a wrong setting of the service must not keep a command from
    talking to it. The address may be the one that OpenAI's clients use, which ends with `/v1`.
    """
    environment = settings.load_unchecked()
    url = url or environment.get("MES_URL") or _local_url(environment)
    return Target(
        url=(url if "://" in url else f"http://{url}").rstrip("/").removesuffix("/v1").rstrip("/"),
        key=key or environment.get("MES_API_KEY") or DEVELOPMENT_KEY,
    )


def _local_url(environment: Mapping[str, str]) -> str:
    host = environment.get("HOST", "127.0.0.1")
    host = settings.CONNECT_HOSTS.get(host, host)
    return f"http://{f'[{host}]' if ':' in host else host}:{environment.get('PORT', 8001)}"


def _remember(name: str) -> Callable[[click.Context, click.Parameter, str | None], None]:
    def remember(context: click.Context, parameter: click.Parameter, value: str | None) -> None:
        if value is not None:
            context.meta[name] = value  # shared by the contexts of the group and its command

    return remember

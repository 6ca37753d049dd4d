"""`mes key`: create, list and revoke the keys of the API keys file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import wraps
from pathlib import Path
from typing import Any

import click

from mes.config import api_keys_admin
from mes.config.api_keys import INFERENCE, KEY_NAME, SCOPES, ApiKey, ApiKeysError
from mes.config.settings import SettingsError, load


@click.group(epilog="Example: mes key new --name ci --file keys.json")
def key() -> None:
    """Create, list and revoke API keys.

    They are stored as hashes in the API keys file (MES_API_KEYS_FILE). A running service reads a
    change within a second.
    """


def _with_keys_file(command: Callable[..., None]) -> Callable[..., None]:
    """Add `--file` to the command, pass the API keys file as `path`, and report its errors."""
    option = click.option("--file", type=Path, help="API keys file, instead of MES_API_KEYS_FILE.")

    @option
    @wraps(command)
    def with_path(file: Path | None, **kwargs: Any) -> None:
        with _errors_as_messages():
            command(path=file or _configured_file(), **kwargs)

    return with_path


@contextmanager
def _errors_as_messages() -> Iterator[None]:
    """Turn errors of the settings and the keys file into click's, which print no traceback."""
    try:
        yield
    except (ApiKeysError, SettingsError) as exc:
        raise click.ClickException(str(exc)) from exc
    except api_keys_admin.ApiKeyNotFound as exc:
        raise click.UsageError(str(exc)) from exc


def _configured_file() -> Path:
    path = load().api_keys_file
    if path is None:
        raise click.UsageError("no API keys file is set; use --file, or set MES_API_KEYS_FILE")
    return path


def _valid_name(context: click.Context, parameter: click.Parameter, value: str) -> str:
    if KEY_NAME.fullmatch(value):
        return value
    raise click.BadParameter("use 1 to 64 of A-Z a-z 0-9 . _ -")


@key.command(epilog="Example: mes key new --name ci --scope admin --expires 2030-12-31")
@click.option("--name", required=True, callback=_valid_name, help="Owner of the key; it is logged.")
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    type=click.Choice(SCOPES),
    default=[INFERENCE],
    show_default=True,
    help="Scope of the key; may be repeated. admin includes the others.",
)
@click.option(
    "--expires",
    type=click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M:%SZ"]),
    help="Time in UTC when the key expires.",
)
@_with_keys_file
def new(path: Path, name: str, scopes: tuple[str, ...], expires: datetime | None) -> None:
    """Create a key and print it. It cannot be shown again."""
    secret = api_keys_admin.create_key(
        path,
        name=name,
        scopes=dict.fromkeys(scopes),
        expires=expires and expires.replace(tzinfo=UTC),
    )
    click.echo(f"added {name} to {path}; store the key, it cannot be shown again:", err=True)
    click.echo(secret)


@key.command("list", epilog="Example: mes key list")
@_with_keys_file
def list_command(path: Path) -> None:
    """List the keys: name, id, scopes, creation date and state."""
    for entry in api_keys_admin.list_keys(path):
        scopes, created = ",".join(sorted(entry.scopes)), _date(entry.created)
        click.echo(f"{entry.name:<24} {entry.id}  {scopes:<24} {created}  {_state(entry)}")


@key.command(epilog="Example: mes key revoke ci")
@click.argument("name_or_id")
@_with_keys_file
def revoke(path: Path, name_or_id: str) -> None:
    """Disable a key, given by name or id.

    The id is needed if several keys have the name.
    """
    revoked = api_keys_admin.revoke_key(path, name_or_id)
    click.echo(f"revoked {revoked.name} ({revoked.id}); it is rejected within a second", err=True)


def _date(time: datetime | None) -> str:
    return f"{time:%Y-%m-%d}" if time else "-         "


def _state(entry: ApiKey) -> str:
    if entry.disabled:
        return "disabled"
    if not entry.is_valid_at(datetime.now(UTC)):
        return f"expired {_date(entry.expires)}"
    return f"valid until {_date(entry.expires)}" if entry.expires else "valid"

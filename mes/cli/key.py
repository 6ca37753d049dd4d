"""`mes key`: makes, lists and revokes the keys of the keys file."""

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


@click.group()
def key() -> None:
    """Make, list and revoke the keys that callers show.

    They stand in the keys file (MES_API_KEYS_FILE), as hashes; a running service reads an edit
    within a second.
    """


def _file(command: Callable[..., None]) -> Callable[..., None]:
    """Hand the command the keys file as `path`, and tell what goes wrong without a traceback."""
    option = click.option("--file", type=Path, help="The keys file, instead of MES_API_KEYS_FILE.")

    @option
    @wraps(command)
    def with_path(file: Path | None, **kwargs: Any) -> None:
        with _told():
            command(path=file or _configured(), **kwargs)

    return with_path


@contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except (ApiKeysError, SettingsError) as exc:
        raise click.ClickException(str(exc)) from exc
    except api_keys_admin.ApiKeyNotFound as exc:
        raise click.UsageError(str(exc)) from exc


def _configured() -> Path:
    path = load().api_keys_file
    if path is None:
        raise click.UsageError("name the keys file with --file, or set MES_API_KEYS_FILE")
    return path


def _name(context: click.Context, parameter: click.Parameter, value: str) -> str:
    if KEY_NAME.fullmatch(value):
        return value
    raise click.BadParameter("use 1 to 64 of A-Z a-z 0-9 . _ -")


@key.command()
@click.option("--name", required=True, callback=_name, help="Who has it; it stands in the log.")
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    type=click.Choice(SCOPES),
    default=[INFERENCE],
    show_default=True,
    help="What it may do; may be repeated. admin includes the others.",
)
@click.option(
    "--expires",
    type=click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M:%SZ"]),
    help="When it ends, in UTC.",
)
@_file
def new(path: Path, name: str, scopes: tuple[str, ...], expires: datetime | None) -> None:
    """Make a key and print it, this once."""
    ends = expires and expires.replace(tzinfo=UTC)
    made = api_keys_admin.create_key(path, name=name, scopes=dict.fromkeys(scopes), expires=ends)
    click.echo(f"added {name} to {path}; this is the key, which is not kept anywhere:", err=True)
    click.echo(made)


@key.command("list")
@_file
def show(path: Path) -> None:
    """List the keys: name, id, scopes, when made, and whether they are in force."""
    for each in api_keys_admin.list_keys(path):
        scopes, made = ",".join(sorted(each.scopes)), _day(each.created)
        click.echo(f"{each.name:<24} {each.id}  {scopes:<24} {made}  {_state(each)}")


@key.command()
@click.argument("name_or_id")
@_file
def revoke(path: Path, name_or_id: str) -> None:
    """Disable a key, by its name, or by its id where two have one name."""
    revoked = api_keys_admin.revoke_key(path, name_or_id)
    click.echo(f"revoked {revoked.name} ({revoked.id}); it is refused within a second", err=True)


def _day(time: datetime | None) -> str:
    return f"{time:%Y-%m-%d}" if time else "-         "


def _state(each: ApiKey) -> str:
    if each.disabled:
        return "disabled"
    if not each.is_valid_at(datetime.now(UTC)):
        return f"expired {_day(each.expires)}"
    return f"until {_day(each.expires)}" if each.expires else "in force"

"""`mes serve` and `mes up`: start the service, alone or with the embedded runtime."""

from __future__ import annotations

import os
import sys

import click

from mes.cli import quickstart
from mes.cli.client import CommandError
from mes.cli.package_files import GUNICORN, write_default_catalog

_CATALOG = "config/models.json"


@click.command(epilog="Example: OLLAMA_HOST=127.0.0.1:11434 mes serve")
def serve() -> None:
    """Serve under gunicorn until SIGTERM.

    Models run on the runtime at OLLAMA_HOST. The settings come from the environment and from .env
    in the present folder, the catalog from config/models.json, which is written if it is missing.
    `mes up` also starts a runtime and fetches models.
    """
    try:
        write_default_catalog(_CATALOG)
    except OSError as exc:
        raise CommandError(
            f"{_CATALOG} cannot be written ({exc.strerror}); set MODELS_CONFIG_PATH to a catalog"
        ) from exc
    # An empty value counts as not set; gunicorn fails on an empty WEB_CONCURRENCY.
    environ = {name: value for name, value in os.environ.items() if value.strip()}
    # gunicorn replaces this process, so that signals reach it without a parent passing them on.
    os.execve(sys.executable, [sys.executable, "-m", *GUNICORN], environ)


@click.command(epilog="Example: mes up, and in another terminal: mes run smollm2:135m 'Hello'")
@click.pass_context
def up(ctx: click.Context) -> None:
    """Start a runtime, two small models and MES, until Ctrl-C.

    In the present folder, models go to models/, logs to logs/, and the catalog to config/. If
    OLLAMA_HOST is set, that runtime is used, and no model is fetched.
    """
    ctx.exit(quickstart.main())

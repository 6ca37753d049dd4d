"""Files of the package that the service starts with: gunicorn's configuration and catalogs."""

from __future__ import annotations

from pathlib import Path

import click

from mes.config.settings import load_unchecked

_PACKAGE = Path(__file__).parents[1]

# gunicorn runs the file anew at each reload; a module would keep its first settings.
GUNICORN = ["gunicorn", "-c", str(_PACKAGE / "serve" / "gunicorn_conf.py"), "mes.serve.wsgi:app"]


def write_default_catalog(path: str) -> None:
    """Write the catalog for new users to `path`, unless it exists or another one is set.

    Args:
        path: `config/models.json` or `config/models.embedded.json`, in the present folder.

    Raises OSError if it cannot be written.
    """
    target = Path(path)
    if target.exists() or load_unchecked().get("MODELS_CONFIG_PATH"):
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes((_PACKAGE / "cli" / "catalogs" / target.name).read_bytes())
    click.echo(f"mes: wrote {path}, the list of models; edit it to add others", err=True)

"""`mes check`: check the installation, the configuration and the running services."""

from __future__ import annotations

import click

from mes.cli.checks import FAIL, Findings, fail, installation, limits, services, warn
from mes.cli.client import Target
from mes.cli.output import colored_word, console
from mes.cli.target import pass_target
from mes.config import settings
from mes.config.catalog import CatalogError, CatalogFile


@click.command(epilog="Example: mes check")
@pass_target
@click.pass_context
def check(ctx: click.Context, target: Target) -> None:
    """Check the configuration and the services.

    Each line is about the installation, the settings, the catalog, the runtime or the service; it
    is ok, or names a problem and its remedy. The exit status is 1 if a line is fail.
    """
    failed = False
    out = console()
    for finding in _all_findings(target):
        failed = failed or finding.level == FAIL
        level = colored_word(finding.level)
        level.pad_right(4 - len(level))
        out.print(level, f"{finding.subject:12}", finding.text)
    ctx.exit(1 if failed else 0)


def _all_findings(target: Target) -> Findings:
    yield from installation.library_findings()
    try:
        current = settings.load()
    except settings.SettingsError as exc:
        yield from (fail("settings", line) for line in str(exc).splitlines())
        yield warn("the rest", "not checked; correct the settings first")
        return
    yield from installation.settings_findings(current)
    yield from installation.state_directory_findings(current.state_dir)
    yield from _catalog_and_runtime_findings(current)
    yield from services.service_findings(target)


def _catalog_and_runtime_findings(current: settings.Settings) -> Findings:
    path = current.models_config_path
    try:
        catalog = CatalogFile(path, current.default_timeout_seconds).current()
    except CatalogError as exc:
        yield from (fail("catalog", line) for line in str(exc).splitlines())
        return
    yield from installation.catalog_findings(catalog, path)
    yield from limits.limit_findings(current, catalog)
    yield from services.runtime_findings(current, catalog, settings.load_unchecked())

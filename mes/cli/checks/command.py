"""`mes check`: check the installation, the configuration and the running services."""

from __future__ import annotations

import click

from mes.cli.checks import FAIL, Findings, fail, installation, limits, runners, services, warn
from mes.cli.checks.configuration import (
    Configuration,
    local_configuration,
    running_configuration,
    source_findings,
)
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

    The settings are those of the running service, if one runs and the key has the scope admin, else
    those of the environment and .env.
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
    here, mistakes = _local_configuration()
    yield from (fail("settings", line) for line in mistakes)
    running, findings = running_configuration(target)
    yield from findings
    current = running or here
    if current is None:
        yield warn("the rest", "not checked; correct the settings first")
        return
    yield from source_findings(current, here)
    yield from installation.settings_findings(current.settings)
    yield from _file_findings(current)
    yield from runners.orphan_findings()
    yield from services.service_findings(target)


def _local_configuration() -> tuple[Configuration | None, list[str]]:
    """Return the settings of here, or a line for each mistake in them."""
    try:
        return local_configuration(), []
    except settings.SettingsError as exc:
        return None, str(exc).splitlines()


def _file_findings(current: Configuration) -> Findings:
    """Yield the findings that need the files and the runtime of the service."""
    path = current.settings.models_config_path
    if current.is_running and not path.exists():
        problem = f"the catalog {path} of the service is not on this machine"
        yield warn("the rest", f"not checked: {problem}; run `mes check` where the service runs")
        return
    yield from installation.state_directory_findings(current.settings.state_dir)
    yield from _catalog_and_runtime_findings(current)


def _catalog_and_runtime_findings(current: Configuration) -> Findings:
    path = current.settings.models_config_path
    try:
        catalog = CatalogFile(path, current.settings.default_timeout_seconds).current()
    except CatalogError as exc:
        yield from (fail("catalog", line) for line in str(exc).splitlines())
        return
    yield from installation.catalog_findings(catalog, path)
    yield from limits.limit_findings(current.settings, catalog)
    yield from services.runtime_findings(current.settings, catalog, current.environment)

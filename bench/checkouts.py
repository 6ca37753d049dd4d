"""Run the service from this checkout and from others, to compare them in one benchmark."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tests.support import process
from tests.support.service import Service


def add_option(parser: argparse.ArgumentParser) -> None:
    """Add the option `--beside NAME=FOLDER`, which may be repeated."""
    parser.add_argument(
        "--beside",
        metavar="NAME=FOLDER",
        action="append",
        default=[],
        type=_checkout,
        help="measure the service from another checkout in the same rounds",
    )


def _checkout(text: str) -> tuple[str, Path]:
    name, _, folder = text.partition("=")
    if not Path(folder, "gunicorn.conf.py").is_file():
        raise argparse.ArgumentTypeError(f"{folder} is not a checkout of MES")
    return name, Path(folder).resolve()


@contextmanager
def services(
    others: list[tuple[str, Path]], *, ollama_url: str, models: Mapping[str, Any]
) -> Iterator[dict[str, Service]]:
    """Run `mes`, from this checkout, and the others, with one worker each.

    Args:
        others: name and folder of each other checkout.

    Yields the services by name, ready to serve.
    """
    with ExitStack() as stack:
        running = {}
        for name, checkout in [("mes", process.ROOT), *others]:
            folder = Path(stack.enter_context(TemporaryDirectory()))
            service = Service(
                folder, ollama_url=ollama_url, models=models, checkout=checkout, WEB_CONCURRENCY=1
            )
            running[name] = stack.enter_context(service)
            service.wait_until_ready()
        yield running

"""Command line of the fake runtime.

    python -m tests.support.fake_ollama --port 11434 --models llama3.1:8b,mistral:7b

It prints two ports: its own and one for control, which also answers while the first refuses
connections. `POST /_control` changes its behaviour, `GET /_stats` returns the counters,
`POST /_reset` clears them.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from importlib import import_module

from tests.support.fake_ollama.connection import Listener
from tests.support.fake_ollama.routes import Routes

DEFAULT_MODELS = "llama3.1:8b,mistral:7b,phi3:mini,codellama:7b,gemma:2b"
SETTINGS = (
    "tokens",
    "ms_per_token",
    "first_token_ms",
    "load_seconds",
    "unload_seconds",
    "unnoticed_seconds",
    "parallel",
    "places",
    "pull_seconds",
    "pull_bytes",
)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="fake_ollama", description=__doc__)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument(
        "--models", default=DEFAULT_MODELS, help="models on disk, separated by commas"
    )
    parser.add_argument(
        "--instant",
        action="store_true",
        help="answer with a fixed text at once, without most of the counters",
    )
    parser.add_argument("--scripts", help="a module with SCRIPTS, which a prompt can select")
    parser.add_argument(
        "--with-parent", action="store_true", help="exit when the parent process ends"
    )
    for name in SETTINGS:
        parser.add_argument(f"--{name.replace('_', '-')}", type=float)
    return parser.parse_args()


def main() -> None:
    arguments = _arguments()
    scripts = import_module(arguments.scripts).SCRIPTS if arguments.scripts else {}
    routes = Routes(arguments.models.split(","), instant=arguments.instant, scripts=scripts)
    for name in SETTINGS:
        if (value := getattr(arguments, name)) is not None:
            is_integer = isinstance(getattr(routes.machine.behaviour, name), int)
            setattr(routes.machine.behaviour, name, int(value) if is_integer else value)
    routes.listeners = [Listener(arguments.port, routes.serve), Listener(0, routes.serve)]
    print(*(listener.port for listener in routes.listeners), flush=True)
    _run_until_exit_of(os.getppid() if arguments.with_parent else None)


def _run_until_exit_of(parent: int | None) -> None:
    while parent is None or os.getppid() == parent:
        time.sleep(0.5)


if __name__ == "__main__":
    # With many threads, a short switch interval keeps the pauses between tokens even.
    sys.setswitchinterval(0.001)
    main()

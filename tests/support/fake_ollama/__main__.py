"""The fake runtime as a program.

    python -m tests.support.fake_ollama --port 11434 --models llama3.1:8b,mistral:7b

It prints its port and that of its control, which answers also while it refuses connections.
`POST /_control` changes its behaviour, `GET /_stats` has the counters, `POST /_reset` clears them.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from importlib import import_module

from tests.support.fake_ollama.routes import Routes
from tests.support.fake_ollama.wire import Listener

DEFAULT_MODELS = "llama3.1:8b,mistral:7b,phi3:mini,codellama:7b,gemma:2b"
TRAITS = ("tokens", "ms_per_token", "first_token_ms", "load_seconds", "unload_seconds")
TRAITS += ("parallel", "pull_seconds", "pull_bytes")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="fake_ollama", description=__doc__)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--models", default=DEFAULT_MODELS, help="what is on disk")
    parser.add_argument("--instant", action="store_true", help="answer at once, count little")
    parser.add_argument("--scripts", help="a module whose SCRIPTS prompts may name")
    parser.add_argument("--with-parent", action="store_true", help="end when the parent does")
    for name in TRAITS:
        parser.add_argument(f"--{name.replace('_', '-')}", type=float)
    return parser.parse_args()


def main() -> None:
    arguments = _arguments()
    scripts = import_module(arguments.scripts).SCRIPTS if arguments.scripts else {}
    routes = Routes(arguments.models.split(","), instant=arguments.instant, scripts=scripts)
    for name in TRAITS:
        if (told := getattr(arguments, name)) is not None:
            is_whole = isinstance(getattr(routes.machine.behaviour, name), int)
            setattr(routes.machine.behaviour, name, int(told) if is_whole else told)
    routes.listeners = [Listener(arguments.port, routes.serve), Listener(0, routes.serve)]
    print(*(listener.port for listener in routes.listeners), flush=True)
    _stay(os.getppid() if arguments.with_parent else None)


def _stay(parent: int | None) -> None:
    while parent is None or os.getppid() == parent:
        time.sleep(0.5)


if __name__ == "__main__":
    # Many short-lived threads take turns here; a quick switch keeps the streams even.
    sys.setswitchinterval(0.001)
    main()

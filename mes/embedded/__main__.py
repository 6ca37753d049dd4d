"""Command line of the embedded runtime: serve models, pull one, list them."""

from __future__ import annotations

import argparse
import logging
import os
import resource
import signal
import socket
import sys
import threading
from pathlib import Path
from typing import Any, NoReturn

from mes.embedded import api, engine, runtime_settings
from mes.embedded.api import OllamaApi
from mes.embedded.api_errors import RuntimeFailure
from mes.embedded.download import pull_model
from mes.embedded.engine import Engine
from mes.embedded.model_pool import LONGEST_QUEUE, ModelPool
from mes.embedded.model_store import ModelStore
from mes.embedded.runtime_settings import EmbeddedSettings, EmbeddedSettingsError

log = logging.getLogger("mes.embedded")
# A request keeps its thread while it waits for a model or a slot. Those for all pending requests,
# and some for everything else, start when they are needed.
THREADS = LONGEST_QUEUE + 64
PROGRAM = "python -m mes.embedded"
DESCRIPTION = "A small runtime that serves Ollama's HTTP API over llama.cpp."
EPILOG = "Settings can also come from the environment: " + ", ".join(
    name for name, _ in runtime_settings.VARIABLES.values()
)


def main(arguments: list[str] | None = None) -> int:
    """Run the command in `arguments` and return the exit status."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    # Otherwise each refused request, such as one that did not arrive in time, takes a line.
    logging.getLogger("mes.requests").setLevel(logging.WARNING)
    options = vars(_parser().parse_args(arguments))
    command = options.pop("command")
    extra = {name: options.pop(name) for name in ("name", "until_stdin_closes") if name in options}
    try:
        return int(command(runtime_settings.load_settings(**options), **extra))
    except (EmbeddedSettingsError, RuntimeFailure, OSError) as exc:
        log.error("%s", exc)
        return 1
    except KeyboardInterrupt:
        return 130


def serve(settings: EmbeddedSettings, *, until_stdin_closes: bool) -> NoReturn:
    """Serve requests until a SIGINT or SIGTERM, which end the process with status 0.

    With `until_stdin_closes`, the end of standard input ends the process too.
    """
    # A setting of MES, which gunicorn reads while it is imported; an empty one would be an error.
    os.environ.pop("WEB_CONCURRENCY", None)
    from mes.embedded.server import LARGEST_BODY, Application
    from mes.server import standalone

    for problem in engine.missing_requirements():
        log.warning("no model can be loaded: %s", problem)
    pool = ModelPool(settings, Engine)
    api = OllamaApi(ModelStore(settings.models_dir), pool, slots=settings.num_parallel)
    with _listener(settings) as listener:
        _exit_on_signals()
        if until_stdin_closes:
            threading.Thread(target=_terminate_at_end_of_stdin, daemon=True).start()
        log.info("mes-embedded %s listens on %s", engine.engine_version(), _url(listener))
        application = Application(api, listener.getsockname()[0])
        try:
            standalone.serve(
                application,
                listener,
                threads=THREADS,
                max_body_bytes=LARGEST_BODY,
                write_timeout_seconds=settings.write_timeout_seconds,
            )
        except SystemExit:
            pass  # a signal
        finally:
            pool.close()
    # The threads of clients that do not read their streams end only at their deadline.
    os._exit(0)


def pull(settings: EmbeddedSettings, *, name: str) -> int:
    """Install one of the known models and print the progress."""
    for event in pull_model(name, ModelStore(settings.models_dir)):
        print(_format_progress(event), flush=True)
    return 0


def list_models(settings: EmbeddedSettings) -> int:
    """Print name, size, number of parameters and path of each model."""
    for model in ModelStore(settings.models_dir).models():
        details = api.describe_tag(model)["details"]
        size = f"{model.size / 1e6:.0f} MB"
        print(f"{model.name!s:30} {size:>9} {details['parameter_size']:>9} {model.path}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(PROGRAM, description=DESCRIPTION, epilog=EPILOG)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    serve_parser = _add_command(commands, "serve", serve, "serve Ollama's HTTP API")
    serve_parser.add_argument("--host", help="address to listen on (default 127.0.0.1)")
    serve_parser.add_argument(
        "--port", type=int, help="port to listen on (default 11435; 0: any free port)"
    )
    serve_parser.add_argument(
        "--until-stdin-closes",
        action="store_true",
        help="exit when standard input ends, as it does when the parent process ends",
    )
    pull_parser = _add_command(commands, "pull", pull, "install a known model by its name")
    pull_parser.add_argument("name", metavar="NAME", help="smollm2:135m or all-minilm")
    _add_command(commands, "list", list_models, "list the models in the folder")
    return parser


def _add_command(commands: Any, name: str, function: Any, text: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text)
    parser.set_defaults(command=function)
    parser.add_argument(
        "--models",
        dest="models_dir",
        type=Path,
        metavar="DIR",
        help="folder of GGUF files, each <name>--<tag>.gguf (default: models)",
    )
    return parser


def _exit_on_signals() -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: sys.exit(0))


def _terminate_at_end_of_stdin() -> None:
    # Not by a buffered file: Python aborts if a thread holds the buffer's lock when it ends.
    while os.read(sys.stdin.fileno(), 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def _listener(settings: EmbeddedSettings) -> socket.socket:
    # Each connection takes a file descriptor, and so does each generation.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    return socket.create_server((settings.host, settings.port), family=family, backlog=512)


def _url(listener: socket.socket) -> str:
    address, port = listener.getsockname()[:2]
    return f"http://[{address}]:{port}" if ":" in address else f"http://{address}:{port}"


def _format_progress(event: dict[str, Any]) -> str:
    if "total" in event:
        return f"{event['status']} {event['completed'] * 100 // event['total']} %"
    return str(event["status"])


if __name__ == "__main__":
    sys.exit(main())

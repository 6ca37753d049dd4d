"""The command line: serve models, pull one, list them."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

from mes.embedded import engine_requirements, model_description, runtime_settings
from mes.embedded.api import OllamaApi
from mes.embedded.api_errors import RuntimeFailure
from mes.embedded.download import pull_model
from mes.embedded.engine import Engine
from mes.embedded.model_pool import ModelPool
from mes.embedded.model_store import ModelStore
from mes.embedded.runtime_settings import EmbeddedSettings, EmbeddedSettingsError
from mes.embedded.server import Server

log = logging.getLogger("mes.embedded")
PROGRAM = "python -m mes.embedded"
ABOUT = "A small runtime that speaks Ollama's HTTP API over llama.cpp."
ENVIRONMENT = "Settings can also come from the environment: " + ", ".join(
    name for name, _ in runtime_settings.VARIABLES.values()
)


def main(arguments: list[str] | None = None) -> int:
    """The exit status: 0 also after Ctrl-C or SIGTERM"""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
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


def serve(chosen: EmbeddedSettings, *, until_stdin_closes: bool) -> int:
    """Answer requests until the process is told to end"""
    for sentence in engine_requirements.missing_requirements():
        log.warning("no model can be loaded: %s", sentence)
    pool = ModelPool(chosen, Engine)
    with Server(
        (chosen.host, chosen.port), OllamaApi(ModelStore(chosen.models_dir), pool)
    ) as server:
        _end_on_signals()
        if until_stdin_closes:
            threading.Thread(target=_end_with_stdin, daemon=True).start()
        log.info(
            "mes-embedded %s listens on %s", engine_requirements.engine_version(), _url(server)
        )
        try:
            server.serve_forever()
        finally:
            pool.close()
    return 0


def fetch(chosen: EmbeddedSettings, *, name: str) -> int:
    """Install one of the known models"""
    for event in pull_model(name, ModelStore(chosen.models_dir)):
        print(_in_words(event), flush=True)
    return 0


def show_list(chosen: EmbeddedSettings) -> int:
    """Print what can be run"""
    for model in ModelStore(chosen.models_dir).models():
        details = model_description.describe_tag(model)["details"]
        size = f"{model.size / 1e6:.0f} MB"
        print(f"{model.name!s:30} {size:>9} {details['parameter_size']:>9} {model.path}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(PROGRAM, description=ABOUT, epilog=ENVIRONMENT)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    server = _command(commands, "serve", serve, "answer Ollama's HTTP API")
    server.add_argument("--host", help="address to listen on (default 127.0.0.1)")
    server.add_argument("--port", type=int, help="port to listen on (default 11435; 0: any)")
    server.add_argument(
        "--until-stdin-closes",
        action="store_true",
        help="end when the parent process does, or closes our standard input",
    )
    puller = _command(commands, "pull", fetch, "install a model that is known by name")
    puller.add_argument("name", metavar="NAME", help="smollm2:135m or all-minilm")
    _command(commands, "list", show_list, "list the models in the folder")
    return parser


def _command(commands: Any, name: str, function: Any, text: str) -> argparse.ArgumentParser:
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


def _end_on_signals() -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: sys.exit(0))


def _end_with_stdin() -> None:
    sys.stdin.buffer.read()
    os.kill(os.getpid(), signal.SIGTERM)


def _url(server: Server) -> str:
    address, port = server.server_address[:2]
    return f"http://{address!s}:{port}"


def _in_words(event: dict[str, Any]) -> str:
    if "total" in event:
        return f"{event['status']} {event['completed'] * 100 // event['total']} %"
    return str(event["status"])


if __name__ == "__main__":
    sys.exit(main())

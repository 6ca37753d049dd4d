"""`mes up` and `make run`: start MES, and the embedded runtime if no Ollama is configured.

Also run as `python -m mes.cli.quickstart`. If OLLAMA_HOST is set, in the environment or in `.env`,
MES uses that runtime, and the embedded one is not started.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from dotenv import dotenv_values

from mes.cli import log_files, stopping
from mes.cli.package_files import GUNICORN, write_default_catalog
from mes.config.settings import Settings, SettingsError, load
from mes.errors import format_number

MODEL, EMBEDDER = "smollm2:135m", "all-minilm"
_EMBEDDED_PORT = 11435
_CATALOG, _EMBEDDED_CATALOG = "config/models.json", "config/models.embedded.json"
_LOGS = Path("logs")
_READY_WITHIN_SECONDS = 120.0
# The embedded runtime runs nothing by then.
_RUNTIME_STOP_SECONDS = 5.0


class StartError(Exception):
    """MES cannot start; the message is printed for the user."""


def main() -> int:
    """Serve until Ctrl-C or SIGTERM, and return the exit status."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    try:
        with ExitStack() as stack:
            return _serve(stack)
    except KeyboardInterrupt:
        report("stopped")
        return 0
    except (StartError, SettingsError, OSError) as exc:
        print(f"MES does not start:\n{exc}", file=sys.stderr)
        return 1


def _serve(stack: ExitStack) -> int:
    began = time.monotonic()
    embedded = not _is_configured("OLLAMA_HOST")
    # An empty value counts as not set; gunicorn fails on an empty WEB_CONCURRENCY.
    environ = {name: value for name, value in os.environ.items() if value.strip()}
    if embedded:
        _require_engine()
    write_default_catalog(_EMBEDDED_CATALOG if embedded else _CATALOG)
    if embedded:
        environ |= _embedded_settings()
    environ |= _stop_settings()
    settings = load(environ)
    _check_port_is_free(settings)
    if embedded:
        _fetch_models()
        stack.enter_context(_embedded_runtime(settings, environ))
    else:
        report(f"using the runtime at {settings.ollama_host}")
    url = settings.local_url
    report(f"starting {settings.workers} workers on {url}, log in {_LOGS}/mes.log")
    service = stack.enter_context(_service(GUNICORN, settings, environ))
    _wait_until_ready(url, service)
    report(f"ready after {time.monotonic() - began:.1f} s; Ctrl-C stops everything. Try:\n")
    model = MODEL if embedded else _first_model(settings)
    print(_example(url, settings.api_key or "YOUR-KEY", model))
    return _wait_until_ended(service)


def report(message: str) -> None:
    """Print a line about the progress of the start, or of the stop."""
    print(f"mes: {message}", flush=True)


def _is_configured(name: str) -> bool:
    return bool(os.environ.get(name) or dotenv_values(".env").get(name))


def _embedded_settings() -> dict[str, str]:
    """Return the settings of MES that make it use the embedded runtime."""
    environ = {"OLLAMA_HOST": f"http://127.0.0.1:{_free_port(_EMBEDDED_PORT)}"}
    if not _is_configured("MODELS_CONFIG_PATH"):
        environ["MODELS_CONFIG_PATH"] = _EMBEDDED_CATALOG
    return environ


def _stop_settings() -> dict[str, str]:
    """Return the settings of MES that let a stop take no longer than a user likes to wait."""
    if _is_configured("GRACEFUL_TIMEOUT"):
        return {}
    return {"GRACEFUL_TIMEOUT": str(stopping.GRACEFUL_TIMEOUT_SECONDS)}


def _embedded_runtime(
    settings: Settings, environ: dict[str, str]
) -> AbstractContextManager[subprocess.Popen[bytes]]:
    url = settings.ollama_host
    report(f"starting the embedded runtime on {url}, log in {_LOGS}/runtime.log")
    port = url.rpartition(":")[2]
    serve = ["mes.embedded", "serve", "--until-stdin-closes", "--port", port]
    stop = partial(stopping.stop, seconds=_RUNTIME_STOP_SECONDS)
    return _running("runtime", serve, environ, stop)


def _service(
    gunicorn: list[str], settings: Settings, environ: dict[str, str]
) -> AbstractContextManager[subprocess.Popen[bytes]]:
    def announce() -> None:
        with contextlib.suppress(OSError):  # the terminal may be closed
            report(stopping.announcement(settings))

    def stop(process: subprocess.Popen[bytes]) -> None:
        if not stopping.stop(process, stopping.service_seconds(settings), announce):
            report("ended before all requests were answered")

    return _running("mes", gunicorn, environ, stop)


def _wait_until_ended(service: subprocess.Popen[bytes]) -> int:
    status = service.wait()
    report(f"MES has ended by itself with status {status}; see {_LOGS}/mes.log")
    return status


def _require_engine() -> None:
    if find_spec("xllamacpp") is None:
        requirements = metadata.requires("openbench-mes") or []
        engine = next(each for each in requirements if each.startswith("xllamacpp"))
        raise StartError(
            "the embedded runtime needs a package that is not installed; "
            f"pip install '{engine.partition(';')[0].strip()}', or set OLLAMA_HOST to an Ollama"
        )


def _fetch_models() -> None:
    report(f"fetching {MODEL} and {EMBEDDER} (177 MB, some seconds the first time)")
    began = time.monotonic()
    _fetch(MODEL)
    try:
        _fetch(EMBEDDER)
    except StartError as exc:
        report(f"continuing without embeddings: {exc}")
    report(f"fetched after {time.monotonic() - began:.1f} s")


def _fetch(model: str) -> None:
    pull = [sys.executable, "-m", "mes.embedded", "pull", model]
    done = subprocess.run(pull, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        raise StartError(f"{model} could not be fetched:\n{done.stdout.strip()[-2000:]}")


@contextmanager
def _running(
    name: str,
    module: list[str],
    environ: dict[str, str],
    stop: Callable[[subprocess.Popen[bytes]], object],
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a Python module during the block, with its output in `logs/<name>.log`."""
    with log_files.appended(_LOGS / f"{name}.log") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", *module],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environ,
            # Ctrl-C reaches only this process, which then stops the others in order.
            start_new_session=True,
        )
        try:
            yield process
        finally:
            stop(process)


def _wait_until_ready(url: str, service: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _READY_WITHIN_SECONDS
    checks = "it does not answer"
    while time.monotonic() < deadline:
        if service.poll() is not None:
            raise StartError(_last_lines("mes"))
        try:
            with urllib.request.urlopen(f"{url}/ready", timeout=5):
                return
        except urllib.error.HTTPError as exc:
            checks = exc.read().decode()
        except OSError:
            pass
        time.sleep(0.1)
    raise StartError(f"not ready after {format_number(_READY_WITHIN_SECONDS)} s: {checks}")


def _last_lines(name: str) -> str:
    return "\n".join(log_files.last_lines(_LOGS / f"{name}.log", 15))


def _check_port_is_free(settings: Settings) -> None:
    if not _is_free(settings.host, settings.port):
        raise StartError(
            f"port {settings.port} is taken; set PORT to another port, or stop the program using it"
        )


def _free_port(preferred: int) -> int:
    if _is_free("127.0.0.1", preferred):
        return preferred
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _is_free(host: str, port: int) -> bool:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
        return True


def _first_model(settings: Settings) -> str:
    models = json.loads(settings.models_config_path.read_bytes())["models"]
    return next((name for name, entry in models.items() if entry.get("enabled", True)), "MODEL")


def _example(url: str, key: str, model: str) -> str:
    body = json.dumps({"model_id": model, "prompt": "What is the capital of France?"})
    return (
        f"curl -s {url}/v1/inference \\\n"
        f"  -H 'Authorization: Bearer {key}' -H 'Content-Type: application/json' \\\n"
        f"  -d '{body}'\n"
    )


if __name__ == "__main__":
    sys.exit(main())

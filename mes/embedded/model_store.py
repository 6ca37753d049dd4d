"""The models folder: the names of models and their GGUF files.

A file in the folder is a model: `<name>--<tag>.gguf` is `<name>:<tag>`, a plain `<name>.gguf` is
`<name>:latest`, and a sub-folder is the part before a slash (`me/tiny--v1.gguf` is `me/tiny:v1`).
A link to a file under a second name is a second model with a process of its own.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from mes.embedded.api_errors import BadRequest, UnknownModel
from mes.embedded.gguf import Header, NotGGUF, read_header

log = logging.getLogger(__name__)
DIGESTS_FILE = ".digests.json"
NAME_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,79}")
IMPLIED_PARTS = ("registry.ollama.ai", "library")


@dataclass(frozen=True)
class ModelName:
    """A model name as Ollama reads it: `:latest` is implied, and case does not matter.

    `path` is the part before the tag, without an implied registry or library.
    """

    path: str
    tag: str = "latest"

    def __str__(self) -> str:
        return f"{self.path}:{self.tag}"

    @property
    def key(self) -> str:
        """A string that is equal for all spellings of a name."""
        return str(self).casefold()

    @property
    def full(self) -> str:
        """The name with registry and library, as in Ollama's errors about capabilities."""
        slashes = self.path.count("/")
        return "/".join((*IMPLIED_PARTS[: max(0, 2 - slashes)], str(self)))


def parse_name(text: object) -> ModelName:
    """Return the model name in `text`. Raise `BadRequest` where Ollama rejects the name."""
    if not isinstance(text, str):
        raise BadRequest("invalid model name")
    path, tag = _split_name(re.sub(r"^https?://", "", text.strip()))
    parts = path.split("/")
    if len(parts) > 3 or not all(NAME_PART.fullmatch(part) for part in (*parts, tag)):
        raise BadRequest("invalid model name")
    return ModelName(_without_implied(parts), tag)


def _split_name(text: str) -> tuple[str, str]:
    head, colon, tag = text.rpartition(":")
    return (head, tag) if colon and "/" not in tag else (text, "latest")


def _without_implied(parts: list[str]) -> str:
    if len(parts) == 3 and parts[0].casefold() == IMPLIED_PARTS[0]:
        parts = parts[1:]
    if len(parts) == 2 and parts[0].casefold() == IMPLIED_PARTS[1]:
        parts = parts[1:]
    return "/".join(parts)


@dataclass(frozen=True)
class StoredModel:
    name: ModelName
    path: Path
    size: int
    modified_ns: int
    header: Header
    digest: str
    """SHA-256 of the file, in hexadecimal digits."""

    @cached_property
    def capabilities(self) -> list[str]:
        return ["embedding"] if self.header.is_embedding else ["completion", "tokenize"]


class ModelStore:
    """The models of a folder. Files that are added or replaced are noticed at once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._headers: dict[str, Header | NotGGUF] = {}
        self._digests: dict[str, str] = self._read_digests()

    def models(self) -> list[StoredModel]:
        """Return all models, the newest first. Files without a valid header are skipped."""
        found = []
        for name, path in self._files():
            try:
                found.append(self._model(name, path))
            except (NotGGUF, OSError) as exc:
                log.debug("skipped %s: %s", path, exc)
        return sorted(found, key=lambda model: model.modified_ns, reverse=True)

    def find(self, text: object) -> StoredModel:
        """Return the model called `text`, in any spelling of its name.

        Raise `UnknownModel`, or `BadRequest` if `text` is not a model name.
        """
        key = parse_name(text).key
        for name, path in self._files():
            if name.key == key:
                return self._existing_model(name, path)
        raise UnknownModel(f"model '{text}' not found")

    def has(self, text: str) -> bool:
        key = parse_name(text).key
        return any(name.key == key for name, _ in self._files())

    def path_for(self, name: ModelName) -> Path:
        return self.folder / f"{name.path}--{name.tag}.gguf"

    def delete(self, model: StoredModel) -> None:
        """Remove the file. Other links to the same file stay."""
        model.path.unlink(missing_ok=True)

    def copy(self, source: object, destination: object) -> None:
        """Link the file of `source` under the name `destination`, or copy it without hard links."""
        model, target = self.find(source), self.path_for(parse_name(destination))
        if target == model.path:
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)
        try:
            os.link(model.path, target)
        except OSError:
            shutil.copyfile(model.path, target)

    def _files(self) -> Iterator[tuple[ModelName, Path]]:
        for path in sorted(self._paths()):
            if not path.is_file():
                continue
            try:
                yield self._name_of(path), path
            except BadRequest:
                log.debug("skipped %s: not a model name", path)

    def _paths(self) -> Iterator[Path]:
        # Unlike a glob, it does not fail when a folder disappears meanwhile.
        for folder, folders, files in os.walk(self.folder):
            folders[:] = [name for name in folders if not name.startswith(".")]
            visible = (name for name in files if not name.startswith("."))
            yield from (Path(folder, name) for name in visible if name.endswith(".gguf"))

    def _name_of(self, path: Path) -> ModelName:
        text = path.relative_to(self.folder).with_suffix("").as_posix()
        head, dashes, tag = text.rpartition("--")
        return parse_name(f"{head}:{tag}" if dashes else text)

    def _existing_model(self, name: ModelName, path: Path) -> StoredModel:
        try:
            return self._model(name, path)
        except FileNotFoundError as exc:
            raise UnknownModel(f"model '{name}' not found") from exc

    def _model(self, name: ModelName, path: Path) -> StoredModel:
        stat = path.stat()
        # Links to one file share the key, so that it is read and hashed only once.
        key = f"{stat.st_dev}-{stat.st_ino}-{stat.st_size}-{stat.st_mtime_ns}"
        header = self._header(key, path)
        return StoredModel(
            name, path, stat.st_size, stat.st_mtime_ns, header, self._digest(key, path)
        )

    def _header(self, key: str, path: Path) -> Header:
        if key not in self._headers:
            try:
                self._headers[key] = read_header(path)
            except NotGGUF as exc:
                log.warning("model_file_invalid path=%s reason=%s", path, exc)
                self._headers[key] = exc
        header = self._headers[key]
        if isinstance(header, NotGGUF):
            raise header
        return header

    def _digest(self, key: str, path: Path) -> str:
        if key not in self._digests:
            with path.open("rb") as file:
                self._digests[key] = hashlib.file_digest(file, "sha256").hexdigest()
            self._write_digests()
        return self._digests[key]

    def _read_digests(self) -> dict[str, str]:
        try:
            loaded: dict[str, Any] = json.loads((self.folder / DIGESTS_FILE).read_text())
        except (OSError, ValueError):
            return {}
        return loaded

    def _write_digests(self) -> None:
        temporary = self.folder / f"{DIGESTS_FILE}.{os.getpid()}"
        try:
            temporary.write_text(json.dumps(self._digests))
            temporary.replace(self.folder / DIGESTS_FILE)
        except OSError as exc:
            # In a read-only folder, each file is hashed again after the next start.
            log.debug("digests not saved: %s", exc)

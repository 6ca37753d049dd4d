"""The folder of GGUF files, seen as a list of models.

A file is a model by being there: `<name>--<tag>.gguf` is `<name>:<tag>`, a plain `<name>.gguf` is
`<name>:latest`, and a sub-folder is what stands before a slash (`me/tiny--v1.gguf` is
`me/tiny:v1`). A link to a file under a second name is a second model with a process of its own.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from . import names
from .errors import BadRequest, ModelNotFound
from .gguf import Header, NotGGUF, read_header
from .names import Name

log = logging.getLogger(__name__)
DIGESTS = ".digests.json"


@dataclass(frozen=True)
class Model:
    name: Name
    path: Path
    size: int
    modified_ns: int
    header: Header
    digest: str
    """sha256 of the file"""

    @cached_property
    def capabilities(self) -> list[str]:
        return ["embedding"] if self.header.is_embedding else ["completion"]


class Store:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._headers: dict[str, Header | NotGGUF] = {}
        self._digests: dict[str, str] = self._read_digests()

    def models(self) -> list[Model]:
        """All that can be run, the newest first; a file that is no GGUF is passed over"""
        found = []
        for name, path in self._files():
            try:
                found.append(self._model(name, path))
            except (NotGGUF, OSError) as exc:
                log.debug("passed over %s: %s", path, exc)
        return sorted(found, key=lambda model: model.modified_ns, reverse=True)

    def find(self, text: object) -> Model:
        """The model of that name, however it is spelt; ModelNotFound"""
        wanted = names.parse(text)
        for name, path in self._files():
            if name.key == wanted.key:
                return self._readable(name, path)
        raise ModelNotFound(f"model '{text}' not found")

    def has(self, text: str) -> bool:
        wanted = names.parse(text).key
        return any(name.key == wanted for name, _ in self._files())

    def path_for(self, name: Name) -> Path:
        return self.folder / f"{name.path}--{name.tag}.gguf"

    def delete(self, model: Model) -> None:
        """Another name for the same file stays"""
        model.path.unlink(missing_ok=True)

    def copy(self, source: object, destination: object) -> None:
        """Give the file a second name; costs no disk where the file system has hard links"""
        model, target = self.find(source), self.path_for(names.parse(destination))
        if target == model.path:
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)
        try:
            os.link(model.path, target)
        except OSError:
            shutil.copyfile(model.path, target)

    def _files(self) -> Iterator[tuple[Name, Path]]:
        for path in sorted(self.folder.glob("**/*.gguf")):
            if self._is_hidden(path) or not path.is_file():
                continue
            try:
                yield self._name_of(path), path
            except BadRequest:
                log.debug("passed over %s: not a model name", path)

    def _is_hidden(self, path: Path) -> bool:
        return any(part.startswith(".") for part in path.relative_to(self.folder).parts)

    def _name_of(self, path: Path) -> Name:
        text = path.relative_to(self.folder).with_suffix("").as_posix()
        head, dashes, tag = text.rpartition("--")
        return names.parse(f"{head}:{tag}" if dashes else text)

    def _readable(self, name: Name, path: Path) -> Model:
        try:
            return self._model(name, path)
        except FileNotFoundError as exc:
            raise ModelNotFound(f"model '{name}' not found") from exc

    def _model(self, name: Name, path: Path) -> Model:
        stat = path.stat()
        # The same bytes under another name are read and hashed once.
        key = f"{stat.st_dev}-{stat.st_ino}-{stat.st_size}-{stat.st_mtime_ns}"
        header = self._header(key, path)
        return Model(name, path, stat.st_size, stat.st_mtime_ns, header, self._digest(key, path))

    def _header(self, key: str, path: Path) -> Header:
        if key not in self._headers:
            try:
                self._headers[key] = read_header(path)
            except NotGGUF as exc:
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
            loaded: dict[str, Any] = json.loads((self.folder / DIGESTS).read_text())
        except (OSError, ValueError):
            return {}
        return loaded

    def _write_digests(self) -> None:
        draft = self.folder / f"{DIGESTS}.{os.getpid()}"
        try:
            draft.write_text(json.dumps(self._digests))
            draft.replace(self.folder / DIGESTS)
        except OSError as exc:
            # A read-only folder costs a reading of each file at the next start, no more.
            log.debug("digests not kept: %s", exc)

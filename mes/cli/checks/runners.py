"""Check for runners of an Ollama that was killed: its processes, each of which holds a model.

Ollama ends its runners when it stops. One that is killed leaves them behind, and they keep their
memory until they are ended by hand; an Ollama that is started later does not know them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mes.cli.checks import Findings, warn

_PROC = Path("/proc")
# Programs that only run models; whether for Ollama, their path of the model shows.
_ENGINES = ("llama-server", "ollama_llama_server")
_MODEL_FILES = "/blobs/sha256-"


@dataclass(frozen=True)
class _Process:
    pid: int
    parent: int
    words: list[str]
    resident_gb: float

    @property
    def program(self) -> str:
        return self.words[0].rpartition("/")[2] if self.words else ""

    @property
    def is_runner(self) -> bool:
        if self.program == "ollama":
            return self.words[1:2] == ["runner"]
        return self.program in _ENGINES and any(_MODEL_FILES in word for word in self.words)


def orphan_findings() -> Findings:
    """Yield the runners on this machine that no Ollama uses any more."""
    processes = {process.pid: process for process in _processes()}
    for process in processes.values():
        parent = processes.get(process.parent)
        if process.is_runner and (parent is None or parent.program != "ollama"):
            problem = f"process {process.pid} is left over from an Ollama that was killed"
            problem += f", and occupies {process.resident_gb:.1f} GB of memory"
            yield warn("runtime", f"{problem}; end it with: kill {process.pid}")


def _processes() -> Iterator[_Process]:
    for folder in _PROC.glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().decode(errors="replace").split("\0")
            status = (folder / "status").read_text(errors="replace")
        except OSError:
            continue  # it has ended
        fields = dict(line.partition(":")[::2] for line in status.splitlines())
        kilobytes = int(fields.get("VmRSS", "0 kB").split()[0])
        yield _Process(int(folder.name), int(fields["PPid"]), words[:-1], kilobytes / 1e6)

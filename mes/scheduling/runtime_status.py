"""The status of the runtime as the leader last saw it, and the capabilities of its models."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from types import MappingProxyType

import orjson

from mes.config.timed_lock import Holder, holder_of
from mes.domain import PulledModel, Runtime
from mes.domain.capabilities import COMPLETION
from mes.errors import MesError, ModelNotPulled, RuntimeReplyInvalid
from mes.scheduling.serialization import EMPTY, NOTHING
from mes.scheduling.shared_file import Damaged, Handle, SharedFile

# The leader works in rounds of this length.
_READ_INTERVAL_SECONDS = 0.25
# An older status says nothing about the present.
_STALE_AFTER_SECONDS = 10.0


@dataclass(frozen=True)
class RuntimeStatus:
    """The runtime as it was at `seen_at` (of `time.monotonic()`).

    Args:
        up: Whether the runtime answered.
        detail: Why it did not.
        version: Its name and version.
        seen_at: When the leader last asked it.
        in_gpu: Whether a model is in the memory of a GPU.
        pulled: The models on its disk, by name.
        pulled_at: When they were listed.
        state_dir: The problem of the state directory, or an empty string.
    """

    up: bool = False
    detail: str = "the runtime has not been asked yet"
    version: str | None = None
    seen_at: float = 0.0
    in_gpu: bool = False
    pulled: Mapping[str, PulledModel] = field(default_factory=lambda: MappingProxyType({}))
    pulled_at: float = 0.0
    state_dir: str = ""

    @property
    def shares_runners(self) -> bool:
        """Whether it runs the models of one digest once, for all names that lead to them."""
        return (self.version or "").startswith("ollama ")

    @property
    def is_fresh(self) -> bool:
        return time.monotonic() - self.seen_at < _STALE_AFTER_SECONDS

    @property
    def running(self) -> bool:
        return self.up and self.is_fresh

    @cached_property
    def slots(self) -> tuple[tuple[str, int], ...]:
        """How many requests the runtime serves at a time, by model, where that is known."""
        return tuple((m.name, m.slots) for m in self.pulled.values() if m.slots is not None)


class CapabilityCache:
    """The capabilities of models by name and digest. The runtime is asked for each once."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._known: dict[tuple[str, str], tuple[str, ...]] = {}

    def complete(self, model: PulledModel, earlier: PulledModel | None) -> PulledModel:
        """Return the model with its capabilities and slots, which are None while they are unknown.

        Args:
            model: The model as the runtime lists it.
            earlier: The model of this name in the last status, maybe written by another leader.
        """
        capabilities = self._known.get((model.name, model.digest))
        if capabilities is None and earlier is not None and earlier.digest == model.digest:
            capabilities = earlier.capabilities
        slots = model.slots
        if slots is None and capabilities and COMPLETION not in capabilities:
            slots = 1  # Ollama does not report it, and gives no more to a model without text
        return replace(model, capabilities=capabilities, slots=slots)

    def fetch(self, models: Iterable[PulledModel]) -> None:
        """Ask the runtime for the capabilities of these models. Raises RuntimeUnavailable."""
        for model in models:
            self._known[model.name, model.digest] = self._capabilities(model.name)

    def _capabilities(self, name: str) -> tuple[str, ...]:
        try:
            return self._runtime.card(name).capabilities
        except (ModelNotPulled, RuntimeReplyInvalid):
            return ()  # as from a runtime too old to list them: requests have to be tried


class RuntimeStatusFile:
    """The status in a file that the workers share, written by the leader alone.

    The lock on the file makes a worker the leader. `write_error` is the reason why the last status
    could not be written in full, or an empty string.
    """

    def __init__(self, file: SharedFile) -> None:
        self._handle = Handle(file)
        self._lock = threading.Lock()
        self._status = RuntimeStatus()
        self._entry = NOTHING
        self._next_read = 0.0
        self.write_error = ""

    def current(self) -> RuntimeStatus:
        """Return the status that was last written, or up to a quarter of a second before."""
        now = time.monotonic()
        if now < self._next_read:
            return self._status
        with self._lock:
            self._next_read = now + _READ_INTERVAL_SECONDS
            return self._read()

    def latest(self) -> RuntimeStatus:
        """Return the status that was last written."""
        with self._lock:
            return self._read()

    def current_or_asked(self, runtime: Runtime) -> RuntimeStatus:
        """Return the status; until the leader has found out the runtime's version, ask for it.

        The first requests after a start can come before the first round of the leader.
        """
        status = self.current()
        if status.version is None:
            with suppress(MesError):  # a runtime that does not answer fails the request later
                return replace(status, version=runtime.version())
        return status

    def become_leader(self) -> bool:
        """Try to become the one worker that writes, until `step_down`; return whether it is so."""
        return self._handle.lock_within(0)

    @property
    def leader(self) -> Holder | None:
        """The process that writes; None if there is none, or it is not known."""
        return holder_of(self._handle.fileno())

    @property
    def problem(self) -> str:
        """Why the runtime cannot be used, or an empty string."""
        status = self.current()
        if status.running:
            return ""
        leader = self.leader if status.up else None
        if leader is not None:
            return f"the worker that asks the runtime has not reported: {leader}; {leader.remedy}"
        return status.detail or "the runtime has not answered recently"

    def step_down(self) -> None:
        """Let another worker be the leader."""
        self._handle.unlock()

    def write(self, status: RuntimeStatus) -> None:
        """Replace the status.

        If the disk has no room for it, this process keeps it, and `write_error` names the reason.
        The file then gets all of the status but its list of models, if there is room for that.
        """
        with self._lock:
            self._status = status
            try:
                self._write(status)
                self.write_error = ""
            except OSError as exc:
                self.write_error = exc.strerror or str(exc)
                with suppress(OSError):
                    earlier = _decode(self._handle.entry.content)
                    self._write(replace(status, pulled=earlier.pulled))
            self._entry = self._handle.entry

    def close(self) -> None:
        self._handle.close()

    def _read(self) -> RuntimeStatus:
        entry = self._handle.read()
        if entry != self._entry:
            self._entry, self._status = entry, _decode(entry.content)
        return self._status

    def _write(self, status: RuntimeStatus) -> None:
        try:
            self._handle.verify()
        except Damaged:
            self._handle.repair(self._handle.entry)
        self._handle.write(_encode(status))


def _encode(status: RuntimeStatus) -> bytes:
    values = {each.name: getattr(status, each.name) for each in fields(status)}
    return orjson.dumps({**values, "pulled": list(status.pulled.values())})


def _decode(content: bytes) -> RuntimeStatus:
    if content == EMPTY:
        return RuntimeStatus()
    values = orjson.loads(content)
    pulled = {it["name"]: PulledModel(**it) for it in values.pop("pulled")}
    return RuntimeStatus(**values, pulled=pulled)


def check(content: bytes) -> None:
    """Raise ValueError if the file contains a status that this version cannot read."""
    try:
        _decode(content)
    except (TypeError, KeyError, AttributeError) as exc:
        raise ValueError("it is not a runtime status of this version") from exc

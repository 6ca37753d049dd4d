"""Fakes for tests without a server: a runtime, a client and a model of the catalog."""

from __future__ import annotations

import re
import threading
import time
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from mes.domain import (
    Client,
    Emit,
    LoadedModel,
    Logprob,
    ModelCard,
    ModelSpec,
    Prompt,
    PulledModel,
    PullProgress,
    Reply,
    Token,
    ToolCall,
    Usage,
    Vectors,
    no_op,
    normalise,
)
from mes.domain.capabilities import TOOLS, not_capable
from mes.errors import ClientDisconnected, MesError, ModelNotPulled, ShuttingDown
from mes.event_loop import SocketClient

ALL_BUT_EMBEDDING = ("completion", "tools", "vision", "thinking", "tokenize")
DIGEST = "sha256:" + "0" * 64


def spec(model_id: str = "a", **fields: Any) -> ModelSpec:
    """Return a model of the catalog; the defaults limit nothing that a test does not limit."""
    defaults: dict[str, Any] = {
        "display_name": model_id,
        "enabled": True,
        "preload": False,
        "pinned": False,
        "max_concurrent": 1,
        "max_queue": 100,
        "supports_json_mode": True,
        "timeout_seconds": 30.0,
        "max_tokens": 100,
        "temperature": 0.7,
    }
    return ModelSpec(id=model_id, tag=normalise(model_id), **{**defaults, **fields})


class FakeRuntime:
    """Implements `domain.Runtime`: records its calls; its attributes set answers and errors."""

    def __init__(self, *, load_seconds: float = 0.0) -> None:
        self.load_seconds = load_seconds
        self.in_memory: list[str] = []
        self.on_disk = [PulledModel("a:latest", DIGEST, 10, "Q4_0", "1B")]
        self.loads: Counter[str] = Counter()
        self.unloads: list[str] = []
        self.most_in_memory = 0
        self.loaded_calls = 0
        self.prompts: list[Prompt] = []
        self.texts: list[str] = []
        self.embedders: set[str] = set()
        self.capabilities = ALL_BUT_EMBEDDING
        self.answers: Callable[[Prompt], str | MesError] = lambda prompt: "Paris"
        self.hangs: Callable[[Prompt], bool] = lambda prompt: False
        self.hanging = threading.Semaphore(0)
        self.finish_reason = "stop"
        self.reasoning = ""
        self.tool_calls: tuple[ToolCall, ...] = ()
        self.calls: Callable[[Prompt], tuple[ToolCall, ...]] = lambda prompt: self.tool_calls
        self.load_errors: dict[str, list[MesError]] = {}
        self.breaks_off: Exception | None = None
        self.deleting: Callable[[str], None] = lambda name: None
        self.pull_error: MesError | None = None
        self.down: MesError | None = None
        self._lock = threading.Lock()

    def generate(
        self, prompt: Prompt, *, deadline: float, client: Client, emit: Emit = no_op
    ) -> Reply:
        self.prompts.append(prompt)
        if self.hangs(prompt):
            self._wait_until_disconnected(client)
        self._refuse_tools(prompt)
        answer = self.answers(prompt)
        if isinstance(answer, MesError):
            raise answer
        pieces = re.findall(r"\s*\S+|\s+", answer)
        logprobs = [_logprob(piece, prompt.top_logprobs) for piece in pieces]
        with_logprobs = prompt.top_logprobs is not None
        for piece, logprob in zip(pieces, logprobs, strict=True):
            emit(Token(piece, logprobs=(logprob,) if with_logprobs else ()))
        if self.breaks_off is not None:
            raise self.breaks_off
        return Reply(
            text=answer,
            finish_reason=self.finish_reason,
            usage=Usage(10, 5),
            prompt_ms=1.0,
            generation_ms=50.0,
            time_to_first_token_ms=3.0,
            reasoning=self.reasoning,
            tool_calls=self.calls(prompt),
            logprobs=tuple(logprobs) if with_logprobs else (),
        )

    def detokenize(
        self, spec: ModelSpec, ids: Sequence[int], *, deadline: float, client: Client
    ) -> str:
        """Return the text whose characters have these numbers."""
        return "".join(map(chr, ids))

    def _refuse_tools(self, prompt: Prompt) -> None:
        has_calls = any(message.tool_calls for message in prompt.messages)
        if TOOLS not in self.capabilities and (prompt.tools or has_calls):
            raise not_capable(TOOLS, prompt.spec.id, pointer="/tools")

    def embed(
        self,
        spec: ModelSpec,
        texts: Sequence[str],
        *,
        dimensions: int | None,
        deadline: float,
        client: Client,
    ) -> Vectors:
        self.texts += texts
        vector = array("d", [0.6, -0.8, 0.0][:dimensions])
        return Vectors(tuple(vector for _ in texts), prompt_tokens=4 * len(texts))

    def load(self, spec: ModelSpec, *, deadline: float) -> None:
        self._fail_if_down()
        with self._lock:
            self.loads[spec.tag] += 1
        time.sleep(self.load_seconds)
        if self.load_errors.get(spec.tag):
            raise self.load_errors[spec.tag].pop(0)
        with self._lock:
            if spec.tag not in self.in_memory:
                self.in_memory.append(spec.tag)
            self.most_in_memory = max(self.most_in_memory, len(self.in_memory))

    def unload(self, name: str) -> None:
        self._fail_if_down()
        with self._lock:
            self.unloads.append(name)
            if name in self.in_memory:
                self.in_memory.remove(name)

    def loaded(self) -> list[LoadedModel]:
        self._fail_if_down()
        with self._lock:
            self.loaded_calls += 1
            return [LoadedModel(name, DIGEST, "Q4_0", 10, 0, None) for name in self.in_memory]

    def pulled(self) -> list[PulledModel]:
        self._fail_if_down()
        return self.on_disk

    def version(self) -> str:
        return "fake 1.0"

    def card(self, name: str) -> ModelCard:
        self._fail_if_down()
        capabilities = ("embedding",) if name in self.embedders else self.capabilities
        return ModelCard("Q4_0", "1B", 4096, capabilities)

    def pull(self, name: str, *, deadline: float, client: Client) -> Iterator[PullProgress]:
        self._fail_if_down()
        yield PullProgress("pulling manifest")
        yield PullProgress("pulling 000000000000", 5, 10)
        if self.pull_error is not None:
            raise self.pull_error
        self.on_disk.append(PulledModel(normalise(name), DIGEST, 10, "Q4_0", "1B"))

    def delete(self, name: str) -> None:
        self._fail_if_down()
        assert name not in self.in_memory, "Ollama could not unload it any more"
        self.deleting(name)
        found = [model for model in self.on_disk if model.name == name]
        if not found:
            raise ModelNotPulled(f"the runtime does not have {name}")
        self.on_disk.remove(found[0])

    def shut_down(self) -> None:
        self.down = ShuttingDown("the service is shutting down")

    def _wait_until_disconnected(self, client: Client) -> None:
        disconnected = threading.Event()
        with client.on_disconnect(disconnected.set):
            self.hanging.release()
            assert disconnected.wait(10), "the generation was not cancelled"
        raise ClientDisconnected("the client disconnected during the generation")

    def _fail_if_down(self) -> None:
        if self.down is not None:
            raise self.down


def _logprob(text: str, count: int | None) -> Logprob:
    likeliest = Logprob(text, -0.25, tuple(text.encode()))
    return Logprob(text, -0.25, tuple(text.encode()), (likeliest,) * (count or 0))


def client() -> SocketClient:
    """Return a client that stays connected until `mark_disconnected` is called."""
    return SocketClient()


@contextmanager
def in_thread(target: Callable[[], Any]) -> Iterator[threading.Thread]:
    """Run `target` in a thread during the block, and assert that it ends soon after."""
    thread = threading.Thread(target=target)
    thread.start()
    yield thread
    thread.join(10)
    assert not thread.is_alive()


def eventually(condition: Callable[[], Any], seconds: float = 5.0) -> None:
    """Wait until `condition` returns a true value; raise AssertionError after `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition never became true"
        time.sleep(0.005)

"""The nouns MES speaks of, frozen; and the one interface with two implementations."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

# Changing one of these between requests makes Ollama reload the model, so they belong to the
# model's configuration and are sent alike on the load and on every generation.
LOAD_OPTIONS = frozenset(
    {
        "num_ctx",
        "num_batch",
        "num_gpu",
        "main_gpu",
        "num_thread",
        "use_mmap",
        "draft_num_predict",
    }
)


def normalise(name: str) -> str:
    """The one spelling of a model name, matched as Ollama matches it.

    Case does not count, `:latest` and the default registry and namespace are implied. A `:`
    separates a tag only after the last `/` (before it stands a registry's port).
    """
    name = name.strip().lower().removeprefix("registry.ollama.ai/").removeprefix("library/")
    return name if ":" in name.rpartition("/")[2] else f"{name}:latest"


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """One model of the catalog: what may be run, and how."""

    id: str
    tag: str
    display_name: str
    enabled: bool
    preload: bool
    pinned: bool
    max_concurrent: int
    max_queue: int
    supports_json_mode: bool
    timeout_seconds: float
    max_tokens: int
    temperature: float
    max_attempts: int = 2
    context_window: int | None = None
    size_gb: float | None = None
    min_memory_gb: float | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def capacity(self) -> int:
        """How many requests may run or wait at a time."""
        return self.max_concurrent + self.max_queue

    @property
    def load_options(self) -> dict[str, Any]:
        """The options that are part of the loaded model, alike for every request."""
        chosen = {name: value for name, value in self.options.items() if name in LOAD_OPTIONS}
        if self.context_window is not None:
            chosen.setdefault("num_ctx", self.context_window)
        return chosen


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A function that the model wants to be called."""

    id: str
    name: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation; images in base64, as they came.

    A turn of the assistant may hold calls, and a turn of role `tool` what came of one of them.
    """

    role: str
    content: str
    images: tuple[str, ...] = ()
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None
    tool_name: str | None = None


@dataclass(frozen=True, slots=True)
class InferenceRequest:
    """What a caller asks for; None means: as the model's configuration says.

    Either a prompt, with a system prompt perhaps, or messages; tools go with messages. With
    `top_logprobs`, even with 0, each token comes with its probability.
    """

    model_id: str
    prompt: str = ""
    system_prompt: str | None = None
    messages: tuple[Message, ...] = ()
    tools: tuple[Mapping[str, Any], ...] = ()
    think: bool | str = False
    top_logprobs: int | None = None
    stream: bool = False
    temperature: float | None = None
    max_tokens: int | None = None
    timeout_seconds: float | None = None
    json_schema: Mapping[str, Any] | None = None
    max_attempts: int | None = None
    constrain: bool = True
    sampling: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Prompt:
    """What the runtime is asked to complete; `options` are the effective ones, all of them.

    With messages, it is a conversation, and `text` and `system` say nothing. `format` constrains
    decoding: to a JSON Schema, or with "json" to any JSON object.
    """

    spec: ModelSpec
    text: str
    system: str | None
    options: Mapping[str, Any]
    format: Mapping[str, Any] | str | None = None
    messages: tuple[Message, ...] = ()
    tools: tuple[Mapping[str, Any], ...] = ()
    think: bool | str = False
    top_logprobs: int | None = None

    @property
    def question(self) -> str:
        """What the user said last."""
        return self.messages[self._last_of_user].content if self.messages else self.text

    def rephrased(self, question: str) -> Prompt:
        """The same prompt with another question."""
        if not self.messages:
            return replace(self, text=question)
        turns = list(self.messages)
        turns[self._last_of_user] = replace(turns[self._last_of_user], content=question)
        return replace(self, messages=tuple(turns))

    @property
    def _last_of_user(self) -> int:
        return max(n for n, each in enumerate(self.messages) if each.role == "user")


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens, as the runtime counted them."""

    prompt_tokens: int
    completion_tokens: int

    @property
    def total_tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens


@dataclass(frozen=True, slots=True)
class Logprob:
    """How probable a token was: the natural logarithm. `top_logprobs` are the likeliest there."""

    token: str
    logprob: float
    bytes: tuple[int, ...]
    top_logprobs: tuple[Logprob, ...] = ()


@dataclass(frozen=True, slots=True)
class Reply:
    """One finished generation; times in milliseconds, as the runtime measured them.

    `reasoning` is what a reasoning model thought before it answered; `text` has none of it, and
    `logprobs` are those of the text.
    """

    text: str
    finish_reason: str
    usage: Usage
    prompt_ms: float
    generation_ms: float
    time_to_first_token_ms: float
    reasoning: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    logprobs: tuple[Logprob, ...] = ()


@dataclass(frozen=True, slots=True)
class Vectors:
    """What texts became: a vector for each, in their order, in the runtime's own numbers."""

    each: tuple[array[float], ...]
    prompt_tokens: int


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model the runtime holds in memory, in the runtime's own words."""

    name: str
    digest: str
    quantization: str
    size_bytes: int
    vram_bytes: int
    context_length: int | None


@dataclass(frozen=True, slots=True)
class PulledModel:
    """A model the runtime has on disk; `capabilities` is None until the runtime was asked."""

    name: str
    digest: str
    size_bytes: int
    quantization: str
    parameter_size: str
    capabilities: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class ModelCard:
    """All that the runtime knows of one model."""

    quantization: str
    parameter_size: str
    context_length: int | None
    capabilities: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PullProgress:
    """How far a pull has come, in the runtime's own words; the bytes are those of one file."""

    status: str
    completed_bytes: int | None = None
    total_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Queued:
    """It has to wait; position 1 is the next to be served by its model."""

    position: int


@dataclass(frozen=True, slots=True)
class Loading:
    """Its model is being loaded."""


@dataclass(frozen=True, slots=True)
class Token:
    """A piece of the answer; with its tokens' probabilities where they were asked for."""

    text: str
    attempt: int = 1
    logprobs: tuple[Logprob, ...] = ()


@dataclass(frozen=True, slots=True)
class Thought:
    """A piece of the reasoning before the answer."""

    text: str
    attempt: int = 1


Event = Queued | Loading | Token | Thought
"""What happens to an inference before its end."""


class Tell(Protocol):
    """Hears of the events, in the thread that runs the inference; whatever it raises ends that."""

    def __call__(self, *events: Event) -> None:
        """These have happened, in this order, since it was told last."""


def silent(*events: Event) -> None:
    """Where nobody wants to hear."""


class Caller(Protocol):
    """Whoever waits for an answer, and may stop waiting."""

    @property
    def gone(self) -> bool:
        """Has the caller hung up?"""

    def when_gone(self, act: Callable[[], None]) -> AbstractContextManager[None]:
        """Inside the block, `act` is called once, from another thread, if the caller hangs up.

        At once where it has hung up already.
        """


class Runtime(Protocol):
    """Who runs the models. Deadlines are times of `time.monotonic()`.

    Every method raises RuntimeUnavailable where the runtime cannot be reached and
    RuntimeReplyInvalid where it answers nonsense.
    """

    def generate(
        self, prompt: Prompt, *, deadline: float, caller: Caller, tell: Tell = silent
    ) -> Reply:
        """Run one generation to its end, telling its tokens and thoughts as they come.

        Raises GenerationTimeout at the deadline, CallerGone once the caller has hung up (the
        generation is cancelled in the runtime within a second either way), GenerationAborted
        where it broke off, SchemaRefused, PromptTooLong, ModelNotPulled; RequestInvalid for what
        the model cannot do. All the tokens joined are the reply's text.
        """

    def embed(
        self,
        spec: ModelSpec,
        texts: Sequence[str],
        *,
        dimensions: int | None,
        deadline: float,
        caller: Caller,
    ) -> Vectors:
        """Make a vector of each text; of so many dimensions, where that is said.

        Raises what `generate` raises, as far as it applies; RequestInvalid where the model cannot
        make vectors, or none of that length.
        """

    def load(self, spec: ModelSpec, *, deadline: float) -> None:
        """Load and wait until ready. Raises LoadFailed, LoadTimeout, ModelNotPulled."""

    def unload(self, name: str) -> None:
        """Ask for the model to leave memory. It may still be listed for a moment."""

    def loaded(self) -> list[LoadedModel]:
        """The models in memory; those still loading are not listed."""

    def pulled(self) -> list[PulledModel]:
        """The models on disk."""

    def version(self) -> str:
        """What runs, such as "ollama 0.33.0"."""

    def card(self, name: str) -> ModelCard:
        """What the runtime knows of one model. Raises ModelNotPulled."""

    def pull(self, name: str, *, deadline: float, caller: Caller) -> Iterator[PullProgress]:
        """Fetch a model onto the runtime's disk, telling how it goes; complete at the end.

        To be iterated by one thread. Raises PullFailed, also at the deadline, and CallerGone once
        the caller has hung up. Closing the iterator ends the pull too.
        """

    def shut(self) -> None:
        """End all that is under way, and whatever still comes, with ShuttingDown; do not block."""


@dataclass(frozen=True, slots=True)
class Timings:
    """Where the time went; milliseconds."""

    queue_ms: int
    load_ms: int
    prompt_ms: int
    generation_ms: int
    time_to_first_token_ms: int
    tokens_per_second: float | None
    cold_start: bool


@dataclass(frozen=True, slots=True)
class Violation:
    """One way in which an answer breaks its schema."""

    pointer: str
    keyword: str
    detail: str


@dataclass(frozen=True, slots=True)
class Judgement:
    """What came of an answer that had to fit a schema; `parsed` counts where it is valid.

    `extraction` tells where the JSON stood: the `whole` answer, a `fence` in it, or its `prose`.
    """

    verdict: str
    parsed: Any = None
    errors: tuple[Violation, ...] = ()
    extraction: str | None = None

    @property
    def valid(self) -> bool:
        return self.verdict == "valid"


@dataclass(frozen=True, slots=True)
class Attempt:
    """One time the model was asked: how, what it said, and what came of it.

    Without a schema the mode is `free` and there is no judgement but those of the calls, in their
    order; without a reply the attempt was broken off.
    """

    mode: str
    options: Mapping[str, Any]
    reply: Reply | None
    judgement: Judgement | None
    seconds: float
    of_calls: tuple[Judgement, ...] = ()

    @property
    def verdict(self) -> str | None:
        return None if self.judgement is None else self.judgement.verdict


@dataclass(frozen=True, slots=True)
class Provenance:
    """What a run needs to be repeated, beside the options of its answer."""

    model_digest: str | None
    quantization: str | None
    runtime: str | None
    schema_sha256: str | None
    mes_version: str


@dataclass(frozen=True, slots=True)
class Keywords:
    """A schema's keywords: those that the runtime enforces while it writes, and the others."""

    enforced: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Inference:
    """One answered inference: how it came about, and what became of its schema."""

    model_id: str
    latency_ms: int
    timings: Timings
    provenance: Provenance
    attempts: tuple[Attempt, ...]
    keywords: Keywords

    @property
    def final(self) -> Attempt:
        return final(self.attempts)

    @property
    def reply(self) -> Reply:
        assert self.final.reply is not None
        return self.final.reply

    @property
    def usage(self) -> Usage:
        """The tokens of all attempts together."""
        return total([each.reply.usage for each in self.attempts if each.reply is not None])

    @property
    def judgement(self) -> Judgement | None:
        return self.final.judgement

    @property
    def failure(self) -> Judgement | None:
        """What is wrong with the answer, or with the first call that does not fit its tool."""
        judged = (self.judgement, *self.final.of_calls)
        return next((each for each in judged if each is not None and not each.valid), None)


def final(attempts: Sequence[Attempt]) -> Attempt:
    """The attempt whose answer counts: the last one that has a reply."""
    return next(each for each in reversed(attempts) if each.reply is not None)


def total(usages: Iterable[Usage]) -> Usage:
    """What was used altogether."""
    counts = [(each.prompt_tokens, each.completion_tokens) for each in usages]
    return Usage(*map(sum, zip(*counts, strict=True)))


def rate(tokens: int, milliseconds: float) -> float | None:
    """Tokens per second; None where no time was measured."""
    return round(tokens / milliseconds * 1000, 1) if milliseconds else None

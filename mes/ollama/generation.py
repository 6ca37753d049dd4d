"""One generation of the runtime, read as it comes."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from mes.domain import Emit, Event, Logprob, Reply, Thought, Token, ToolCall, Usage, no_op
from mes.errors import GenerationAborted, RuntimeReplyInvalid
from mes.ollama.responses import (
    get_field,
    parse_part,
    plain_text,
    require_count,
    require_objects,
    split_lines,
)
from mes.streams import PumpSteps

Part = Mapping[str, Any]


def read_generation(
    pieces: Iterable[bytes], *, sent: float, emit: Emit = no_op
) -> PumpSteps[Reply]:
    """The whole of it, in a step for each piece; what is in one piece is told at once.

    `sent` is when the question was asked, by the monotonic clock.
    """
    voices, calls = ReasoningParser(emit), list[ToolCall]()
    first = 0.0
    for lines in split_lines(pieces):
        try:
            for line in filter(None, lines):
                part = parse_part(line, otherwise=GenerationAborted)
                if _hear(part, voices, calls):
                    first = first or time.monotonic()
                if part.get("done") is True:
                    waited = (first or time.monotonic()) - sent
                    return _reply(voices, tuple(calls), part, waited_ms=waited * 1000)
        finally:
            is_passed_on = voices.emit()
        yield is_passed_on
    raise GenerationAborted("the generation ended without saying that it was done")


def _hear(part: Part, voices: ReasoningParser, calls: list[ToolCall]) -> bool:
    """The next piece of reasoning and of the text, which a conversation has in a message."""
    said, name = part.get("message"), "content"
    if said is None:
        said, name = part, "response"
    elif type(said) is not dict:
        raise RuntimeReplyInvalid("the runtime sent a message that is not an object")
    thought, text = said.get("thinking", ""), said.get(name, "")
    if type(thought) is not str or type(text) is not str:
        raise RuntimeReplyInvalid(f"the runtime sent a {name} or thinking that is not text")
    if "tool_calls" in said:
        calls += _tool_calls(said)
    if "logprobs" in part:
        voices.weigh(_logprobs(part, "logprobs"))
    if thought:
        voices.think(thought)
    if text:
        voices.hear(text)
    return bool(thought or text)


def _tool_calls(said: Part) -> Iterator[ToolCall]:
    for call in require_objects(said, "tool_calls"):
        function = get_field(call, "function", dict, {})
        yield ToolCall(
            id=get_field(call, "id", str, "") or f"call_{secrets.token_hex(6)}",
            name=get_field(function, "name", str, ""),
            arguments=get_field(function, "arguments", dict, {}),
        )


def _logprobs(part: Part, name: str) -> tuple[Logprob, ...]:
    return tuple(
        Logprob(
            token=get_field(each, "token", str, ""),
            logprob=_number(each, "logprob"),
            bytes=tuple(get_field(each, "bytes", list, [])),
            top_logprobs=_logprobs(each, "top_logprobs"),
        )
        for each in require_objects(part, name)
    )


def _number(part: Part, name: str) -> float:
    value: Any = part.get(name)
    # Go writes 0.0 as 0.
    if type(value) not in (int, float):
        raise RuntimeReplyInvalid(f"the runtime sent a {name} that is not a number")
    return float(value)


def _reply(
    voices: ReasoningParser, calls: tuple[ToolCall, ...], last: Part, *, waited_ms: float
) -> Reply:
    reason = last.get("done_reason")
    if reason not in ("stop", "length"):
        raise GenerationAborted(
            f"the generation ended for no proper reason ({plain_text(str(reason))})"
        )
    reasoning, text = voices.end()
    return Reply(
        text=text,
        reasoning=reasoning,
        tool_calls=calls,
        logprobs=voices.logprobs,
        finish_reason=reason,
        usage=Usage(require_count(last, "prompt_eval_count"), require_count(last, "eval_count")),
        prompt_ms=require_count(last, "prompt_eval_duration") / 1e6,
        generation_ms=require_count(last, "eval_duration") / 1e6,
        time_to_first_token_ms=waited_ms,
    )


# Voices: a model's reasoning and its answer, told apart while they come.

_THOUGHT_BEGINS, _THOUGHT_ENDS = "<think>", "</think>"
# So many blanks before the first word are no sign that a thought will follow.
_LONGEST_START = 1000


class ReasoningParser:
    """What a model has said so far.

    Ollama leaves both voices in one text for models whose template it does not know; a thought
    that is never closed is all reasoning.
    """

    def __init__(self, emit: Emit) -> None:
        self._emit = emit
        self._answer: list[str] = []
        self._reasoning: list[str] = []
        self._held = ""
        self._logprobs: list[Logprob] = []
        self._of_what_is_held: list[Logprob] = []
        self._untold: list[Event] = []
        self._is_passed_on = False
        # Not bound to this object: it would hold itself, and all that was said, until the garbage
        # collector comes by.
        self._how: Callable[[ReasoningParser, str], None] = ReasoningParser._begin

    def weigh(self, logprobs: Iterable[Logprob]) -> None:
        """Take the probabilities of the next piece, before it is heard."""
        self._of_what_is_held += logprobs

    def hear(self, text: str) -> None:
        """Take the next piece of a text that may hold both."""
        self._how(self, text)

    def think(self, text: str) -> None:
        """Take the next piece of what is reasoning for sure."""
        self._of_what_is_held.clear()
        self._reasoning.append(text)
        self._untold.append(Thought(text))

    def emit(self) -> bool:
        """Tell what was said since the last time; True where all that was told is passed on."""
        if self._untold:
            said, self._untold = self._untold, []
            self._is_passed_on = self._emit(*said)
        return self._is_passed_on

    def end(self) -> tuple[str, str]:
        """The whole reasoning and the whole answer."""
        if self._held:
            (self._say if self._how is ReasoningParser._begin else self.think)(self._held)
        return "".join(self._reasoning).strip(), "".join(self._answer)

    @property
    def logprobs(self) -> tuple[Logprob, ...]:
        """Those of the answer."""
        return tuple(self._logprobs)

    def _say(self, text: str) -> None:
        self._answer.append(text)
        token = Token(text, logprobs=self._weighed()) if self._of_what_is_held else Token(text)
        self._untold.append(token)

    def _weighed(self) -> tuple[Logprob, ...]:
        logprobs, self._of_what_is_held = self._of_what_is_held, []
        self._logprobs += logprobs
        return tuple(logprobs)

    def _begin(self, text: str) -> None:
        self._held += text
        start = self._held.lstrip()
        if start.startswith(_THOUGHT_BEGINS):
            self._held = ""
            self._go_on(
                ReasoningParser._until_the_thought_ends, start.removeprefix(_THOUGHT_BEGINS)
            )
        elif not _THOUGHT_BEGINS.startswith(start) or len(self._held) > _LONGEST_START:
            said, self._held = self._held, ""
            self._go_on(ReasoningParser._say, said)

    def _until_the_thought_ends(self, text: str) -> None:
        thought, ended, answer = (self._held + text).partition(_THOUGHT_ENDS)
        self._held = "" if ended else _begun(_THOUGHT_ENDS, thought)
        if thought := thought.removesuffix(self._held):
            self.think(thought)
        if ended:
            self._go_on(ReasoningParser._until_the_answer_begins, answer)

    def _until_the_answer_begins(self, text: str) -> None:
        if text := text.lstrip():
            self._go_on(ReasoningParser._say, text)

    def _go_on(self, how: Callable[[ReasoningParser, str], None], text: str) -> None:
        self._how = how
        if text:
            how(self, text)


def _begun(word: str, text: str) -> str:
    """The end of the text that may be the beginning of the word."""
    end = text[text.rfind(word[0]) :] if word[0] in text else ""
    return end if word.startswith(end) else ""

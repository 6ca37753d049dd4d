"""Generations: the reading of the responses of /api/generate and /api/chat."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from mes.domain import (
    Emit,
    Event,
    Logprob,
    Prompt,
    Reply,
    Thought,
    Token,
    ToolCall,
    no_op,
)
from mes.errors import GenerationAborted, RuntimeReplyInvalid
from mes.ollama.logprobs import logprobs_of, parse_logprobs
from mes.ollama.progress import GenerationProgress, Measurements, load_milliseconds
from mes.ollama.responses import (
    get_field,
    parse_object,
    require_count,
    require_objects,
    split_lines,
    to_plain_text,
)
from mes.ollama.stream_errors import stream_error_from
from mes.ollama.unopened_reasoning import logprobs_after, split_at_end_tag
from mes.streams import PumpSteps

Part = Mapping[str, Any]
"""One line of a response: a JSON object."""


def read_generation(
    body: Iterable[bytes], prompt: Prompt, progress: GenerationProgress, *, emit: Emit = no_op
) -> PumpSteps[Reply]:
    """Read a response in steps, one for each piece of the body, and return the reply.

    The events of a piece are emitted together. A step yields True if all events are passed on.
    The pieces of text are added to `progress`.

    Raises GenerationAborted, RuntimeReplyInvalid, SchemaRefused and PromptTooLong.
    """
    parser, calls = ReasoningParser(emit), list[ToolCall]()
    for lines in split_lines(body):
        try:
            for line in filter(None, lines):
                part = parse_object(line)
                if "error" in part:
                    raise stream_error_from(part, prompt, progress)
                progress.add(*_read_part(part, parser, calls))
                if part.get("done") is True:
                    return _build_reply(parser, tuple(calls), part, progress)
        finally:
            is_passed_on = parser.emit_pending()
        yield is_passed_on
    raise GenerationAborted("the generation ended without saying that it was done")


def run_to_end(steps: PumpSteps[Reply]) -> Reply:
    """Run all steps in this thread and return the reply: nothing is emitted, so nothing waits."""
    try:
        while True:
            next(steps)
    except StopIteration as stop:
        reply: Reply = stop.value
        return reply


def _read_part(part: Part, parser: ReasoningParser, calls: list[ToolCall]) -> tuple[str, str]:
    """Pass the content of a line on to the parser; return its reasoning and its text."""
    content, name = part.get("message"), "content"
    if content is None:  # a generation, not a conversation
        content, name = part, "response"
    elif type(content) is not dict:
        raise RuntimeReplyInvalid("the runtime sent a message that is not an object")
    reasoning, text = content.get("thinking", ""), content.get(name, "")
    if type(reasoning) is not str or type(text) is not str:
        raise RuntimeReplyInvalid(f"the runtime sent a {name} or thinking that is not text")
    if "tool_calls" in content:
        _add_tool_calls(calls, _parse_tool_calls(content))
    if "logprobs" in part:
        parser.add_logprobs(parse_logprobs(part))
    if reasoning:
        parser.feed_reasoning(reasoning)
    if text:
        parser.feed(text)
    return reasoning, text


def _add_tool_calls(calls: list[ToolCall], new: Iterable[ToolCall]) -> None:
    """Add the calls that are not repeated from an earlier line, each with an id of its own."""
    by_id = {call.id: call for call in calls}
    for call in new:
        if by_id.get(call.id) == call:
            continue
        if call.id in by_id:
            # Clients match the results with the calls by the id.
            call = replace(call, id=_new_id())
        by_id[call.id] = call
        calls.append(call)


def _parse_tool_calls(message: Part) -> Iterator[ToolCall]:
    for call in require_objects(message, "tool_calls"):
        function = get_field(call, "function", dict, {})
        yield ToolCall(
            id=get_field(call, "id", str, "") or _new_id(),
            name=get_field(function, "name", str, ""),
            arguments=_parse_arguments(function),
        )


def _parse_arguments(function: Part) -> Mapping[str, Any] | str:
    """Return the arguments: an object; the text, for the verdict, if the model wrote another."""
    arguments = function.get("arguments")
    return arguments if isinstance(arguments, str) else get_field(function, "arguments", dict, {})


def _new_id() -> str:
    return f"call_{secrets.token_hex(6)}"


_CACHED = "prompt_cached_count"


def _without_load(measured: Measurements, load_ms: float) -> Measurements:
    """Return the measurements without the load of the model before the first token."""
    waited_ms = measured.time_to_first_token_ms
    if waited_ms <= load_ms:
        return measured
    return measured._replace(time_to_first_token_ms=waited_ms - load_ms)


def _build_reply(
    parser: ReasoningParser,
    calls: tuple[ToolCall, ...],
    last: Part,
    progress: GenerationProgress,
) -> Reply:
    reason = last.get("done_reason")
    if reason not in ("stop", "length"):
        raise GenerationAborted(
            f"the generation ended for no proper reason ({to_plain_text(str(reason))})"
        )
    reasoning, text = parser.finish()
    load_ms = load_milliseconds(last)
    return Reply(
        text=text,
        reasoning=reasoning,
        tool_calls=calls,
        logprobs=parser.logprobs,
        finish_reason=reason,
        **_without_load(progress.measure(last), load_ms)._asdict(),
        load_ms=load_ms,
        # Only the embedded runtime reports it.
        cached_tokens=require_count(last, _CACHED) if _CACHED in last else None,
    )


_BEGIN_TAG, _END_TAG = "<think>", "</think>"
# A text that begins with more whitespace than this is taken for an answer without reasoning.
_MAX_LEADING_CHARACTERS = 1000


class ReasoningParser:
    """Separates the reasoning of a model from its answer while the text arrives.

    Ollama leaves both in one text for models whose template it does not know. Reasoning without an
    end tag has no answer after it. Reasoning without a begin tag is known at its end only: until
    then its events are those of an answer.
    """

    def __init__(self, emit: Emit) -> None:
        self._emit = emit
        self._answer: list[str] = []
        self._reasoning: list[str] = []
        self._undecided = ""
        self._logprobs: list[Logprob] = []
        self._undecided_logprobs: list[Logprob] = []
        self._pending: list[Event] = []
        self._is_passed_on = False
        self._is_separated = False
        # A function and not a bound method: a reference to itself would keep the parser and the
        # text in memory until the garbage collector runs.
        self._state: Callable[[ReasoningParser, str], None] = ReasoningParser._before_begin_tag

    def add_logprobs(self, logprobs: Iterable[Logprob]) -> None:
        """Add the probabilities of the text that is fed next."""
        self._undecided_logprobs += logprobs

    def feed(self, text: str) -> None:
        """Add a piece of text, which may be reasoning or answer."""
        self._state(self, text)

    def feed_reasoning(self, text: str) -> None:
        """Add a piece of text that is reasoning for certain."""
        self._undecided_logprobs.clear()
        self._is_separated = True
        self._add_reasoning(text)

    def emit_pending(self) -> bool:
        """Emit the new events; return True if all events so far are passed on."""
        if self._pending:
            events, self._pending = self._pending, []
            self._is_passed_on = self._emit(*events)
        return self._is_passed_on

    def finish(self) -> tuple[str, str]:
        """Return the complete reasoning and the complete answer."""
        if self._undecided:
            is_answer = self._state is ReasoningParser._before_begin_tag
            (self._add_answer if is_answer else self.feed_reasoning)(self._undecided)
        reasoning, answer = "".join(self._reasoning).strip(), "".join(self._answer)
        if not self._is_separated and _END_TAG in answer:
            text = answer
            reasoning, answer = split_at_end_tag(text)
            self._logprobs = logprobs_after(len(text) - len(answer), self._logprobs)
        return reasoning, answer

    @property
    def logprobs(self) -> tuple[Logprob, ...]:
        """The probabilities of the answer."""
        return tuple(self._logprobs)

    def _add_reasoning(self, text: str) -> None:
        self._reasoning.append(text)
        self._pending.append(Thought(text))

    def _add_answer(self, text: str) -> None:
        self._answer.append(text)
        logprobs = self._take_logprobs(text) if self._undecided_logprobs else ()
        self._pending.append(Token(text, logprobs=logprobs))

    def _take_logprobs(self, text: str) -> tuple[Logprob, ...]:
        logprobs, self._undecided_logprobs = logprobs_of(text, self._undecided_logprobs), []
        self._logprobs += logprobs
        return tuple(logprobs)

    def _before_begin_tag(self, text: str) -> None:
        self._undecided += text
        start = self._undecided.lstrip()
        if start.startswith(_BEGIN_TAG):
            self._undecided, self._is_separated = "", True
            self._enter(ReasoningParser._before_end_tag, start.removeprefix(_BEGIN_TAG))
        elif not _BEGIN_TAG.startswith(start) or len(self._undecided) > _MAX_LEADING_CHARACTERS:
            answer, self._undecided = self._undecided, ""
            self._enter(ReasoningParser._add_answer, answer)

    def _before_end_tag(self, text: str) -> None:
        reasoning, end_tag, answer = (self._undecided + text).partition(_END_TAG)
        self._undecided = "" if end_tag else _partial_end_tag(reasoning)
        if reasoning := reasoning.removesuffix(self._undecided):
            self._add_reasoning(reasoning)
        if end_tag:
            self._enter(ReasoningParser._before_answer, answer)
        else:
            self._undecided_logprobs.clear()

    def _before_answer(self, text: str) -> None:
        if text := text.lstrip():
            self._enter(ReasoningParser._add_answer, text)

    def _enter(self, state: Callable[[ReasoningParser, str], None], text: str) -> None:
        self._state = state
        if text:
            state(self, text)


def _partial_end_tag(text: str) -> str:
    """Return the end of the text that may be the start of an end tag."""
    end = text[text.rfind("<") :] if "<" in text else ""
    return end if _END_TAG.startswith(end) else ""

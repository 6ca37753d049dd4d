"""One generation of the runtime, read as it comes."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from mes.domain import Emit, Logprob, Reply, ToolCall, Usage, no_op
from mes.errors import GenerationAborted, RuntimeReplyInvalid
from mes.runtime.replies import count, get, lines_in, objects, part_of, plain
from mes.runtime.voices import Voices
from mes.streams import PumpSteps

Part = Mapping[str, Any]


def generation(pieces: Iterable[bytes], *, sent: float, emit: Emit = no_op) -> PumpSteps[Reply]:
    """The whole of it, in a step for each piece; what is in one piece is told at once.

    `sent` is when the question was asked, by the monotonic clock.
    """
    voices, calls = Voices(emit), list[ToolCall]()
    first = 0.0
    for lines in lines_in(pieces):
        try:
            for line in filter(None, lines):
                part = part_of(line, otherwise=GenerationAborted)
                if _hear(part, voices, calls):
                    first = first or time.monotonic()
                if part.get("done") is True:
                    waited = (first or time.monotonic()) - sent
                    return _reply(voices, tuple(calls), part, waited_ms=waited * 1000)
        finally:
            is_passed_on = voices.emit()
        yield is_passed_on
    raise GenerationAborted("the generation ended without saying that it was done")


def _hear(part: Part, voices: Voices, calls: list[ToolCall]) -> bool:
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
    for call in objects(said, "tool_calls"):
        function = get(call, "function", dict, {})
        yield ToolCall(
            id=get(call, "id", str, "") or f"call_{secrets.token_hex(6)}",
            name=get(function, "name", str, ""),
            arguments=get(function, "arguments", dict, {}),
        )


def _logprobs(part: Part, name: str) -> tuple[Logprob, ...]:
    return tuple(
        Logprob(
            token=get(each, "token", str, ""),
            logprob=_number(each, "logprob"),
            bytes=tuple(get(each, "bytes", list, [])),
            top_logprobs=_logprobs(each, "top_logprobs"),
        )
        for each in objects(part, name)
    )


def _number(part: Part, name: str) -> float:
    value: Any = part.get(name)
    # Go writes 0.0 as 0.
    if type(value) not in (int, float):
        raise RuntimeReplyInvalid(f"the runtime sent a {name} that is not a number")
    return float(value)


def _reply(voices: Voices, calls: tuple[ToolCall, ...], last: Part, *, waited_ms: float) -> Reply:
    reason = last.get("done_reason")
    if reason not in ("stop", "length"):
        raise GenerationAborted(f"the generation ended for no proper reason ({plain(str(reason))})")
    reasoning, text = voices.end()
    return Reply(
        text=text,
        reasoning=reasoning,
        tool_calls=calls,
        logprobs=voices.logprobs,
        finish_reason=reason,
        usage=Usage(count(last, "prompt_eval_count"), count(last, "eval_count")),
        prompt_ms=count(last, "prompt_eval_duration") / 1e6,
        generation_ms=count(last, "eval_duration") / 1e6,
        time_to_first_token_ms=waited_ms,
    )

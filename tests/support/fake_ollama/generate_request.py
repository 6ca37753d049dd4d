"""Requests to generate, load or unload, with the checks that Ollama makes."""

from __future__ import annotations

import json
import re
import string
import time
from typing import Any

from tests.support.fake_ollama.connection import BARE_JSON
from tests.support.fake_ollama.conversation import check_messages
from tests.support.fake_ollama.model import LOAD_OPTIONS, Model, canonical
from tests.support.fake_ollama.reasoning import Output, Times, output_of, plain_output
from tests.support.fake_ollama.responses import (
    DEFAULT_NUM_CTX,
    ErrorResponse,
    now,
    runner_error,
    with_tag,
)

_NAME = re.compile(r"(\w[\w.:-]*/)?(\w[\w-]*/)?\w[\w.-]*(:\w[\w.-]*)?", re.ASCII)
_INTEGERS = frozenset(LOAD_OPTIONS) - {"use_mmap"} | frozenset(
    {"num_predict", "num_keep", "top_k", "repeat_last_n", "seed"}
)
_FLOATS = frozenset({"temperature", "top_p", "min_p", "typical_p", "repeat_penalty"}) | frozenset(
    {"presence_penalty", "frequency_penalty"}
)
_UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600}
_DURATION = re.compile(r"(-?\d+(?:\.\d+)?)(ms|s|m|h)")


def parse(body: bytes) -> dict[str, Any]:
    """Return the JSON object in `body`. Raise `ErrorResponse` like Ollama's parser."""
    if not body:
        raise ErrorResponse(400, "missing request body")
    try:
        document = json.loads(body)
    except json.JSONDecodeError as exc:
        found = exc.doc[exc.pos : exc.pos + 1]
        text = f"invalid character '{found}' looking for beginning of value"
        raise ErrorResponse(400, text if found else "unexpected EOF") from exc
    if not isinstance(document, dict):
        raise ErrorResponse(400, "json: cannot unmarshal into Go value of type api.GenerateRequest")
    return document


def checked_name(name: str) -> str:
    """Return `name`. Raise `ErrorResponse` if it is missing or invalid."""
    if not name:
        raise ErrorResponse(404, "model '' not found")
    if not _NAME.fullmatch(name.strip()):
        raise ErrorResponse(400, "invalid model name")
    return name


class GenerateRequest:
    """A request of /api/generate or /api/chat; without a prompt, it loads or unloads."""

    def __init__(self, body: dict[str, Any], *, chat: bool) -> None:
        self._body = body
        self.is_chat = chat
        self.name = body.get("model") or ""
        if chat and not self.name:
            raise ErrorResponse(400, "model is required")
        self.stream = body.get("stream", True)
        self.format = body.get("format")
        self.options = {k: v for k, v in (body.get("options") or {}).items() if v is not None}
        self.prompt = self._text()
        self.limit = self._limit()
        self._keep_alive = _seconds(body.get("keep_alive"))

    def _text(self) -> str:
        if self.is_chat:
            return "\n".join(each.get("content") or "" for each in self._body.get("messages") or [])
        return self._body.get("prompt") or ""

    def _limit(self) -> int | None:
        limit = self.options.get("num_predict", -1)
        return int(limit) if isinstance(limit, int | float) and limit > 0 else None

    @property
    def stage(self) -> str:
        if self._body.get("messages") if self.is_chat else self.prompt:
            return "generate"
        return "unload" if self._keep_alive == 0 else "load"

    @property
    def unloads_after(self) -> bool:
        return self._keep_alive == 0

    @property
    def keep_alive_seconds(self) -> float | None:
        """For how long the model is kept without use; -1 for ever, None if the request is silent.

        The 0 of a generation counts when it has ended.
        """
        return self._keep_alive or None

    @property
    def load_options(self) -> dict[str, Any]:
        """Options of the request that a model is loaded with."""
        options = {name: self.options[name] for name in LOAD_OPTIONS if name in self.options}
        return {**options, "shift": self._body.get("shift", True)}

    def check(self, model: Model) -> None:
        """Raise the `ErrorResponse` that Ollama gives before it looks for a runner."""
        self._check_capability(model)
        check_messages(self._body.get("messages") or [])
        if self._body.get("think") and "thinking" not in model.abilities:
            raise ErrorResponse(400, f'"{self.name}" does not support thinking')
        if self._body.get("tools") and "tools" not in model.capabilities:
            full = f"registry.ollama.ai/library/{with_tag(canonical(self.name))}"
            raise ErrorResponse(400, f"{full} does not support tools")
        if not 0 <= (self._body.get("top_logprobs") or 0) <= 20:
            raise ErrorResponse(400, "top_logprobs must be between 0 and 20")
        for name, value in self.options.items():
            _check_option(name, value)
        if self.format not in (None, "", "json") and not isinstance(self.format, dict):
            quoted = json.dumps(json.dumps(self.format))
            expected = 'expected "json" or a valid JSON Schema object'
            raise ErrorResponse(500, f"invalid format: {quoted}; {expected}", BARE_JSON)

    def _check_capability(self, model: Model) -> None:
        if model.embeds and self.stage != "unload":
            task = "chat" if self.is_chat else "generate"
            raise ErrorResponse(400, f'"{self.name}" does not support {task}')

    def check_first_run(self, model: Model, output: Output) -> None:
        """Raise the `ErrorResponse` of the runner: for a schema, or a prompt that is too long."""
        self._check_length(model, self.prompt_tokens)
        if not output.first_run:
            self.check_second_run(model, output)

    def check_second_run(self, model: Model, output: Output) -> None:
        """Raise the `ErrorResponse` of the run under the format."""
        if isinstance(self.format, dict):
            _check_schema(self.format)
        self._check_length(model, self.prompt_tokens + output.added_to_prompt)

    def _check_length(self, model: Model, tokens: int) -> None:
        window = model.options.get("num_ctx", DEFAULT_NUM_CTX)
        if tokens > window and not self._body.get("truncate", True):
            raise runner_error(
                f"request ({tokens} tokens) exceeds the available context size "
                f"({window} tokens), try increasing it",
                "exceed_context_size_error",
                n_prompt_tokens=tokens,
                n_ctx=window,
            )

    @property
    def prompt_tokens(self) -> int:
        return len(self.prompt.split()) + len((self._body.get("system") or "").split()) + 10

    @property
    def may_call(self) -> bool:
        """Whether the model may call tools; beside a format it does not."""
        return bool(self._body.get("tools")) and not self.format

    def output(self, reasoning: list[str], answer: list[str], model: Model) -> Output:
        """Return the output of the model, which reasons in streams only."""
        if not self.stream or not self.thinks(model):
            return plain_output([], answer, self.limit)
        return output_of(
            reasoning, answer, self.limit, has_format=bool(self.format), is_chat=self.is_chat
        )

    def is_constrained(self, model: Model, reasoning: str) -> bool:
        """Return whether the answer has the format; /api/chat waits for reasoning before it."""
        waits = self.is_chat and self.thinks(model)
        return bool(self.format) and (bool(reasoning) or not waits)

    def thinking_line(self, text: str) -> dict[str, Any]:
        """Return the line of a stream with one piece of the reasoning."""
        return self._line("", message={"thinking": text}, done=False)

    def call_line(self, calls: list[dict[str, Any]]) -> dict[str, Any]:
        """Return the line of a stream with all tool calls."""
        made = [
            {"id": f"call_{number}", "function": {"index": number, **call}}
            for number, call in enumerate(calls)
        ]
        return self._line("", message={"tool_calls": made}, done=False)

    def _line(
        self, text: str, *, message: dict[str, Any] | None = None, **fields: Any
    ) -> dict[str, Any]:
        content: dict[str, Any] = {"response": text, **(message or {})}
        if self.is_chat:
            content = {"message": {"role": "assistant", "content": text, **(message or {})}}
        return {"model": self.name, "created_at": now(), **content, **fields}

    def thinks(self, model: Model) -> bool:
        """Return whether the answer begins with reasoning."""
        return "thinking" in model.abilities and bool(self._body.get("think", True))

    def piece_line(self, text: str) -> dict[str, Any]:
        """Return the line of a stream with one piece of the text."""
        return self._line(text, done=False, **self._logprobs([text]))

    def empty_answer(self, reason: str) -> dict[str, Any]:
        """Return the answer to a load or an unload."""
        return self._line("", done=True, done_reason=reason)

    def last_line(self, output: Output, times: Times) -> dict[str, Any]:
        """Return the line with `done: true` and the measurements; without streaming, the answer."""
        ended = time.monotonic_ns()
        measurements = {
            "total_duration": ended - times.received,
            "load_duration": times.started - times.received,
            "prompt_eval_count": self.prompt_tokens + output.added_to_prompt,
            "prompt_eval_duration": times.first_token - times.run_started,
            "eval_count": output.counted,
            "eval_duration": ended - times.first_token,
        }
        reason = "length" if output.is_cut else "stop"
        context = {} if self.is_chat else {"context": [1, 2, 3]}
        nonzero = {name: value for name, value in measurements.items() if value}
        text = "" if self.stream else "".join(output.answer)
        logprobs = {} if self.stream else self._logprobs(output.answer)
        return self._line(text, done=True, done_reason=reason, **context, **nonzero, **logprobs)

    def _logprobs(self, pieces: list[str]) -> dict[str, Any]:
        """Return the field with the probability of each piece, if it is requested."""
        if not self._body.get("logprobs") or not pieces:
            return {}
        return {"logprobs": [_entry(each, self._body.get("top_logprobs") or 0) for each in pieces]}


def _entry(piece: str, count: int) -> dict[str, Any]:
    """Return the probability of a piece, as if it were one token.

    A letter of four bytes is several tokens, of which the runner reports the last: with the bytes
    of the letter, and among the likeliest with its own.
    """
    token = {"token": piece, "logprob": -0.5, "bytes": list(piece.encode())}
    part = {**token, "token": "\ufffd", "bytes": token["bytes"][-1:]}
    likeliest = [part if any(each > "\uffff" for each in piece) else token]
    likeliest += [
        {"token": each, "logprob": -2.5, "bytes": [ord(each)]} for each in string.printable
    ]
    return {**token, "top_logprobs": likeliest[:count]} if count else token


def _seconds(keep_alive: Any) -> float | None:
    """Return `keep_alive` in seconds; -1 for a negative one (forever), None for none."""
    if keep_alive is None:
        return None
    if isinstance(keep_alive, bool | list | dict):
        raise ErrorResponse(400, f"Unsupported type: '{type(keep_alive).__name__}'")
    if isinstance(keep_alive, int | float):
        return float(keep_alive) if keep_alive >= 0 else -1.0
    if keep_alive == "0":
        return 0.0
    if re.fullmatch(r"-?\d+(\.\d+)?", keep_alive):
        raise ErrorResponse(400, f'time: missing unit in duration "{keep_alive}"')
    parts = _DURATION.findall(keep_alive)
    if not parts or "".join(map("".join, parts)) != keep_alive:
        raise ErrorResponse(400, f'time: invalid duration "{keep_alive}"')
    total = sum(float(number) * _UNITS[unit] for number, unit in parts)
    return total if total >= 0 else -1.0


def _check_option(name: str, value: Any) -> None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    for names, kind in ((_INTEGERS, "integer"), (_FLOATS, "float32")):
        if name in names and not is_number:
            raise ErrorResponse(500, f'option "{name}" must be of type {kind}')
    if name == "use_mmap" and not isinstance(value, bool):
        raise ErrorResponse(500, 'option "use_mmap" must be of type boolean')
    if name == "stop" and not isinstance(value, list):
        raise ErrorResponse(500, 'option "stop" must be of type array')


def _check_schema(schema: Any) -> None:
    """Raise the `ErrorResponse` for two kinds of schemas that the runner cannot compile."""
    problem = None
    if isinstance(schema, bool):
        problem = f"Unrecognized schema: {json.dumps(schema)}"
    elif not re.fullmatch(r"\^.*\$", schema.get("pattern", "^$"), re.DOTALL):
        problem = "Pattern must start with '^' and end with '$'"
    if problem:
        text = f"Field 'json_schema': \"json_schema\": JSON schema conversion failed:\n{problem}"
        raise runner_error(text, "invalid_request_error")
    for inner in schema.get("properties", {}).values():
        _check_schema(inner)

"""What the fake runtime is asked, and what of it Ollama would refuse."""

from __future__ import annotations

import json
import re
import time
from typing import Any

from tests.support.fake_ollama.answers import (
    DEFAULT_NUM_CTX,
    Refused,
    now,
    refused_by_runner,
    with_tag,
)
from tests.support.fake_ollama.model import LOADER, Model, canonical
from tests.support.fake_ollama.wire import BARE_JSON

_NAME = re.compile(r"(\w[\w.:-]*/)?(\w[\w-]*/)?\w[\w.-]*(:\w[\w.-]*)?", re.ASCII)
_WHOLE = frozenset({*LOADER, "num_predict", "num_keep", "top_k", "repeat_last_n", "seed"}) - {
    "use_mmap"
}
_REAL = frozenset({"temperature", "top_p", "min_p", "typical_p", "repeat_penalty"}) | frozenset(
    {"presence_penalty", "frequency_penalty"}
)
_UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600}
_DURATION = re.compile(r"(-?\d+(?:\.\d+)?)(ms|s|m|h)")


def parse(body: bytes) -> dict[str, Any]:
    if not body:
        raise Refused(400, "missing request body")
    try:
        document = json.loads(body)
    except json.JSONDecodeError as exc:
        found = exc.doc[exc.pos : exc.pos + 1]
        text = f"invalid character '{found}' looking for beginning of value"
        raise Refused(400, text if found else "unexpected EOF") from exc
    if not isinstance(document, dict):
        raise Refused(400, "json: cannot unmarshal into Go value of type api.GenerateRequest")
    return document


def checked_name(name: str) -> str:
    if not name:
        raise Refused(404, "model '' not found")
    if not _NAME.fullmatch(name.strip()):
        raise Refused(400, "invalid model name")
    return name


class Ask:
    """A request to generate, load or unload; over /api/generate or /api/chat."""

    def __init__(self, asked: dict[str, Any], *, chat: bool) -> None:
        self._asked = asked
        self._chat = chat
        self.name = asked.get("model") or ""
        if chat and not self.name:
            raise Refused(400, "model is required")
        self.stream = asked.get("stream", True)
        self.format = asked.get("format")
        self.options = {k: v for k, v in (asked.get("options") or {}).items() if v is not None}
        self.prompt = self._text()
        self.limit = self._limit()
        self._keep_alive = _seconds(asked.get("keep_alive"))

    def _text(self) -> str:
        if self._chat:
            return "\n".join(each.get("content", "") for each in self._asked.get("messages") or [])
        return self._asked.get("prompt") or ""

    def _limit(self) -> int | None:
        told = self.options.get("num_predict", -1)
        return int(told) if isinstance(told, int | float) and told > 0 else None

    @property
    def stage(self) -> str:
        if self._asked.get("messages") if self._chat else self.prompt:
            return "generate"
        return "unload" if self._keep_alive == 0 else "load"

    @property
    def unloads_after(self) -> bool:
        return self._keep_alive == 0

    def keep_alive_seconds(self, model: Model) -> float:
        return model.keep_alive_seconds if self._keep_alive is None else self._keep_alive

    @property
    def loader_options(self) -> dict[str, Any]:
        chosen = {name: self.options[name] for name in LOADER if name in self.options}
        return {**chosen, "shift": self._asked.get("shift", True)}

    def check(self, model: Model) -> None:
        """Refuse what Ollama refuses before it looks for a runner."""
        self._check_capability(model)
        if self._asked.get("think"):
            raise Refused(400, f'"{self.name}" does not support thinking')
        if self._asked.get("tools"):
            full = f"registry.ollama.ai/library/{with_tag(canonical(self.name))}"
            raise Refused(400, f"{full} does not support tools")
        for name, value in self.options.items():
            _check_option(name, value)
        if self.format not in (None, "", "json") and not isinstance(self.format, dict):
            shown = json.dumps(json.dumps(self.format))
            expected = 'expected "json" or a valid JSON Schema object'
            raise Refused(500, f"invalid format: {shown}; {expected}", BARE_JSON)

    def _check_capability(self, model: Model) -> None:
        if model.embeds and self.stage != "unload":
            task = "chat" if self._chat else "generate"
            raise Refused(400, f'"{self.name}" does not support {task}')

    def check_fits(self, model: Model) -> None:
        """Refuse what the runner refuses: a schema, a prompt that is too long."""
        if isinstance(self.format, dict):
            _check_schema(self.format)
        window = model.options.get("num_ctx", DEFAULT_NUM_CTX)
        if self.prompt_tokens > window and not self._asked.get("truncate", True):
            raise refused_by_runner(
                f"request ({self.prompt_tokens} tokens) exceeds the available context size "
                f"({window} tokens), try increasing it",
                "exceed_context_size_error",
                n_prompt_tokens=self.prompt_tokens,
                n_ctx=window,
            )

    @property
    def prompt_tokens(self) -> int:
        return len(self.prompt.split()) + len((self._asked.get("system") or "").split()) + 10

    def _object(self, text: str, **more: Any) -> dict[str, Any]:
        content: dict[str, Any] = {"response": text}
        if self._chat:
            content = {"message": {"role": "assistant", "content": text}}
        return {"model": self.name, "created_at": now(), **content, **more}

    def piece(self, text: str) -> dict[str, Any]:
        return self._object(text, done=False)

    def bare(self, reason: str) -> dict[str, Any]:
        """The answer to a load or an unload."""
        return self._object("", done=True, done_reason=reason)

    def final(self, pieces: list[str], began: int, started: int, first: int) -> dict[str, Any]:
        """The object that says `done`, with what was measured."""
        said = pieces[: self.limit]
        ended = time.monotonic_ns()
        measured = {
            "total_duration": ended - began,
            "load_duration": started - began,
            "prompt_eval_count": self.prompt_tokens,
            "prompt_eval_duration": first - started,
            "eval_count": len(said),
            "eval_duration": ended - first,
        }
        reason = "length" if len(said) < len(pieces) or len(said) == self.limit else "stop"
        context = {} if self._chat else {"context": [1, 2, 3]}
        given = {name: value for name, value in measured.items() if value}
        text = "" if self.stream else "".join(said)
        return self._object(text, done=True, done_reason=reason, **context, **given)


def _seconds(keep_alive: Any) -> float | None:
    """What `keep_alive` means: seconds, -1 for ever, None for not given."""
    if keep_alive is None:
        return None
    if isinstance(keep_alive, bool | list | dict):
        raise Refused(400, f"Unsupported type: '{type(keep_alive).__name__}'")
    if isinstance(keep_alive, int | float):
        return float(keep_alive) if keep_alive >= 0 else -1.0
    if keep_alive == "0":
        return 0.0
    if re.fullmatch(r"-?\d+(\.\d+)?", keep_alive):
        raise Refused(400, f'time: missing unit in duration "{keep_alive}"')
    parts = _DURATION.findall(keep_alive)
    if not parts or "".join(map("".join, parts)) != keep_alive:
        raise Refused(400, f'time: invalid duration "{keep_alive}"')
    total = sum(float(number) * _UNITS[unit] for number, unit in parts)
    return total if total >= 0 else -1.0


def _check_option(name: str, value: Any) -> None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    for names, kind in ((_WHOLE, "integer"), (_REAL, "float32")):
        if name in names and not is_number:
            raise Refused(500, f'option "{name}" must be of type {kind}')
    if name == "use_mmap" and not isinstance(value, bool):
        raise Refused(500, 'option "use_mmap" must be of type boolean')
    if name == "stop" and not isinstance(value, list):
        raise Refused(500, 'option "stop" must be of type array')


def _check_schema(schema: Any) -> None:
    """Two of the things that the runner cannot make a grammar of."""
    problem = None
    if isinstance(schema, bool):
        problem = f"Unrecognized schema: {json.dumps(schema)}"
    elif not re.fullmatch(r"\^.*\$", schema.get("pattern", "^$"), re.DOTALL):
        problem = "Pattern must start with '^' and end with '$'"
    if problem:
        text = f"Field 'json_schema': \"json_schema\": JSON schema conversion failed:\n{problem}"
        raise refused_by_runner(text, "invalid_request_error")
    for inner in schema.get("properties", {}).values():
        _check_schema(inner)

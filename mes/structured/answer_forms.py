"""The forms that a request may ask its answer to have: text, JSON, or calls of tools."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar, NamedTuple, Protocol

from mes.domain import InferenceRequest, Reply, ToolCall, ValidationResult, Violation
from mes.domain.json_pointer import json_pointer
from mes.structured.decoding_modes import FREE, GRAMMAR, TOOLS
from mes.structured.messages import (
    with_function,
    with_functions,
    with_schema,
    with_schema_or_calls,
)
from mes.structured.schema import Schema, check_schema
from mes.structured.schema_tree import SchemaLimits
from mes.structured.tools import Check, ToolSchemas, schema_of_calls, shape_of_calls, tool_schemas

_VALID = ValidationResult("valid")


class Judgement(NamedTuple):
    """The validation of a reply, and the tool calls in it with the validation of each.

    The validation is None if the reply need not be of any kind.
    """

    validation: ValidationResult | None
    calls: tuple[ToolCall, ...] = ()
    call_validations: tuple[ValidationResult, ...] = ()


class AnswerForm(Protocol):
    """The form of the answer."""

    @property
    def schema(self) -> Schema | None:
        """The schema of the text; None if any text is accepted."""

    @property
    def streams_text(self) -> bool:
        """Whether the text is reported while it arrives."""

    def modes(self, *, constrain: bool) -> tuple[str, ...]:
        """Return the decoding modes that suit the form, the strictest first."""

    def instruct(self, question: str, mode: str) -> str:
        """Return the question with the instructions that the model needs in this mode."""

    def judge(self, reply: Reply) -> Judgement:
        """Return the verdict on a reply of any shape; calls of tools not offered are invalid."""


def answer_form(
    request: InferenceRequest,
    limits: SchemaLimits,
    *,
    runtime: str | None,
    calls_tools: bool,
    call_id: str,
) -> AnswerForm:
    """Return the form of the answer to the request. Its schemas are checked.

    Args:
        runtime: name and version of the runtime.
        calls_tools: whether the model can be offered tools.
        call_id: the id of a call that the model writes as text.

    Raises:
        SchemaInvalid, SchemaUnsafe: the schema of the text cannot be used.
    """
    check = partial(check_schema, limits=limits, runtime=runtime)
    if request.forced_function is not None:
        return _forced_call(request, check, call_id)
    tools = tool_schemas(request.allowed_tools.values(), check)
    if request.must_call:
        return OfferedTools(tools) if calls_tools else _written_call(request, tools, check, call_id)
    document, place = request.json_schema, request.json_schema_pointer
    schema = None if document is None else check(document, at=place)
    if request.allowed_tools:
        return OfferedTools(tools, schema, must_call=False)
    return FreeText() if schema is None else JsonText(schema)


def _judge_calls(reply: Reply, tools: ToolSchemas) -> tuple[ValidationResult, ...]:
    return tuple(map(tools.validate_call, reply.tool_calls))


def _is_only_calls(reply: Reply) -> bool:
    return bool(reply.tool_calls) and not reply.text.strip()


class FreeText:
    """Any text."""

    schema = None
    streams_text = True

    def modes(self, *, constrain: bool) -> tuple[str, ...]:
        return (FREE,)

    def instruct(self, question: str, mode: str) -> str:
        return question

    def judge(self, reply: Reply) -> Judgement:
        return Judgement(None, reply.tool_calls, _judge_calls(reply, ToolSchemas.none()))


@dataclass(frozen=True)
class JsonText:
    """JSON that fits a schema."""

    schema: Schema
    streams_text: ClassVar[bool] = True

    def modes(self, *, constrain: bool) -> tuple[str, ...]:
        return self.schema.modes_for(constrain=constrain)

    def instruct(self, question: str, mode: str) -> str:
        return question if mode == GRAMMAR else with_schema(question, self.schema.text)

    def judge(self, reply: Reply) -> Judgement:
        validation = self.schema.validate_answer(reply.text, reply.finish_reason)
        return Judgement(validation, reply.tool_calls, _judge_calls(reply, ToolSchemas.none()))


@dataclass(frozen=True)
class ForcedCall(JsonText):
    """The arguments of one function, as JSON, which works with every model."""

    function: Mapping[str, Any]
    call_id: str

    def instruct(self, question: str, mode: str) -> str:
        return super().instruct(with_function(question, self.function), mode)

    def judge(self, reply: Reply) -> Judgement:
        name = self.function["name"]
        if _is_only_calls(reply):
            return _all_valid(reply, ToolSchemas({name: self.schema}, {}))
        validation = self.schema.validate_answer(reply.text, reply.finish_reason)
        call = ToolCall(self.call_id, name, validation.json_alone(reply.text))
        return Judgement(validation, (call,), (validation,))


def _forced_call(request: InferenceRequest, check: Check, call_id: str) -> ForcedCall:
    ((number, tool),) = request.allowed_tools.items()
    function = tool["function"]
    place = json_pointer(["tools", number, "function", "parameters"])
    schema = check(function.get("parameters", {}), at=place)
    return ForcedCall(schema, function, call_id)


@dataclass(frozen=True)
class WrittenCall(JsonText):
    """A call of one of several functions, written as JSON by a model that cannot call tools.

    `schema` is for the grammar; `shape` is that of any call. The arguments are validated against
    the parameters of their function.
    """

    streams_text: ClassVar[bool] = False
    shape: Schema
    tools: ToolSchemas
    functions: tuple[Mapping[str, Any], ...]
    call_id: str

    def instruct(self, question: str, mode: str) -> str:
        return super().instruct(with_functions(question, self.functions), mode)

    def judge(self, reply: Reply) -> Judgement:
        if _is_only_calls(reply):
            return _all_valid(reply, self.tools)
        validation = self.shape.validate_answer(reply.text, reply.finish_reason)
        if not validation.valid:
            return Judgement(validation)
        call = ToolCall(self.call_id, validation.parsed["name"], validation.parsed["arguments"])
        verdict = self.tools.validate_call(call)
        whole = _in_arguments(verdict) if verdict.failed else validation
        return Judgement(whole, (call,), (verdict,))


def _in_arguments(verdict: ValidationResult) -> ValidationResult:
    errors = (replace(each, pointer=f"/arguments{each.pointer}") for each in verdict.errors)
    return replace(verdict, errors=tuple(errors))


def _written_call(
    request: InferenceRequest, tools: ToolSchemas, check: Check, call_id: str
) -> WrittenCall:
    functions = tuple(tool["function"] for tool in request.allowed_tools.values())
    schema = schema_of_calls(tools, check)
    return WrittenCall(schema, shape_of_calls(tools), tools, functions, call_id)


@dataclass(frozen=True)
class OfferedTools:
    """Calls of tools that the runtime offers to the model; if they are optional, else a text.

    `schema` is that of the text, if it has one. Runtimes ignore tools beside a grammar, so the
    first attempt is without one.
    """

    streams_text: ClassVar[bool] = True
    tools: ToolSchemas
    schema: Schema | None = None
    must_call: bool = True

    def modes(self, *, constrain: bool) -> tuple[str, ...]:
        more = () if self.schema is None else self.schema.modes_for(constrain=constrain)
        return (TOOLS, *more)

    def instruct(self, question: str, mode: str) -> str:
        if self.schema is None or mode == GRAMMAR:
            return question
        add_schema = with_schema_or_calls if mode == TOOLS else with_schema
        return add_schema(question, self.schema.text)

    def judge(self, reply: Reply) -> Judgement:
        if reply.tool_calls:
            judged = _all_valid(reply, self.tools)
            return judged if self.must_call else judged._replace(validation=None)
        if self.must_call:
            return Judgement(_missing_call(reply, self.tools.names))
        if self.schema is None:
            return Judgement(None if reply.text.strip() else _empty(reply))
        return Judgement(self.schema.validate_answer(reply.text, reply.finish_reason))


def _all_valid(reply: Reply, tools: ToolSchemas) -> Judgement:
    """Return the verdicts on the calls; as a whole, they are as valid as the first invalid one."""
    verdicts = _judge_calls(reply, tools)
    whole = next((each for each in verdicts if each.failed), _VALID)
    return Judgement(whole, reply.tool_calls, verdicts)


def _empty(reply: Reply) -> ValidationResult | None:
    if reply.finish_reason == "length":
        return None
    error = Violation("", "", "the model returned neither a text nor a call")
    return ValidationResult("empty", errors=(error,))


def _missing_call(reply: Reply, names: Iterable[str]) -> ValidationResult:
    if reply.finish_reason == "length":
        detail = "the answer was cut off at max_tokens before a function was called"
        return ValidationResult("truncated", errors=(Violation("", "", detail),))
    detail = f"no function was called; call one of {', '.join(names)}"
    return ValidationResult("no_tool_call", errors=(Violation("", "", detail[:200]),))

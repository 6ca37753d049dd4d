"""Parameters of other servers' APIs that clients of OpenAI's API send: vLLM's and Ollama's."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from marshmallow import Schema, ValidationError

from mes.api.ignored_fields import Ignored, NullOnly
from mes.api.request_schemas import Number, OnlyValue, between
from mes.api.services import get_services
from mes.domain import InferenceRequest

_EMBEDDED = "mes-embedded "
_IGNORE_EOS = "ignore_eos"
_SEND_FORMAT = "send response_format with a schema"


class OtherParameters(Schema):
    """Parameters that have the same meaning in every request for a generation."""

    repetition_penalty = Number(allow_none=True, validate=between(0, 2))
    # Load generators send these two. With Ollama, an answer ends where the model ends it.
    ignore_eos = Ignored()
    min_tokens = Ignored()
    # MES decides how long a model stays loaded, and in which order requests are served.
    keep_alive = Ignored()
    priority = Ignored()
    request_id = Ignored()
    cache_salt = Ignored()
    # Their only values here are vLLM's defaults.
    use_beam_search = OnlyValue(False)
    length_penalty = OnlyValue(1)
    early_stopping = OnlyValue(False)
    stop_token_ids = OnlyValue([])
    bad_words = OnlyValue([])
    include_stop_str_in_output = OnlyValue(False)
    skip_special_tokens = OnlyValue(True)
    spaces_between_special_tokens = OnlyValue(True)
    prompt_logprobs = NullOnly()
    truncate_prompt_tokens = NullOnly()
    guided_json = NullOnly(_SEND_FORMAT)
    guided_choice = NullOnly(_SEND_FORMAT)
    guided_regex = NullOnly(_SEND_FORMAT)
    guided_grammar = NullOnly(_SEND_FORMAT)
    structured_outputs = NullOnly(_SEND_FORMAT)


def without_end(request: InferenceRequest, values: dict[str, Any]) -> InferenceRequest:
    """Return the request with `ignore_eos`, if that is requested and the runtime honours it.

    A schema ends the answer, whatever the model would do.
    """
    version = get_services().runtime_status.current().version or ""
    is_honoured = version.startswith(_EMBEDDED) and request.json_schema is None
    if values.get(_IGNORE_EOS) is not True or not is_honoured:
        return request
    return replace(
        request,
        sampling={**request.sampling, _IGNORE_EOS: True},
        ignored=tuple(name for name in request.ignored if name != _IGNORE_EOS),
    )


def with_own_name(values: dict[str, Any], *, name: str, other: str) -> dict[str, Any]:
    """Return the values, with the value of the parameter `other` under MES's `name` for it.

    Raises ValidationError if both names have a value and the values differ.
    """
    if other not in values:
        return values
    if values.get(name, values[other]) != values[other]:
        raise ValidationError(f"differs from {other}; send one of the two", name)
    return {**values, name: values[other]}

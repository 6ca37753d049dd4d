"""Second names of parameters, and those of vLLM and Ollama that clients of OpenAI's API send."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from marshmallow import Schema, ValidationError

from mes.api.ignored_fields import Ignored, NullOnly
from mes.api.request_schemas import Number, OnlyValue, Whole, between
from mes.api.services import get_services
from mes.domain import InferenceRequest

_EMBEDDED = "mes-embedded "
_IGNORE_EOS = "ignore_eos"
_LENGTH, _NEWER_LENGTH = "max_tokens", "max_completion_tokens"
_PENALTY, _OTHER_PENALTY = "repeat_penalty", "repetition_penalty"
_SEND_FORMAT = "send response_format with a schema"


class OtherParameters(Schema):
    """Parameters that have the same meaning in every request for a generation."""

    max_completion_tokens = Whole(allow_none=True, validate=between(1, 1_000_000))
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

    def ignores(self, name: str, document: dict[str, Any]) -> bool:
        """Return whether the parameter has no effect beside the others of the document."""
        is_replaced = name == _LENGTH and document[name] is not None
        return is_replaced and document.get(_NEWER_LENGTH) not in (None, document[name])


def without_end(request: InferenceRequest, values: dict[str, Any]) -> InferenceRequest:
    """Return the request with `ignore_eos`, if that is requested and the runtime honours it.

    A schema ends the answer, whatever the model would do.
    """
    version = get_services().known_runtime_status().version or ""
    is_honoured = version.startswith(_EMBEDDED) and request.json_schema is None
    if values.get(_IGNORE_EOS) is not True or not is_honoured:
        return request
    return replace(
        request,
        sampling={**request.sampling, _IGNORE_EOS: True},
        ignored=tuple(name for name in request.ignored if name != _IGNORE_EOS),
    )


def with_own_names(values: dict[str, Any]) -> dict[str, Any]:
    """Return the values of parameters with a second name under the name that MES uses.

    `max_completion_tokens` has replaced `max_tokens` in OpenAI's API and counts if both are set.

    Raises ValidationError if the two penalties differ.
    """
    named = dict(values)
    if _NEWER_LENGTH in values:
        named[_LENGTH] = values[_NEWER_LENGTH]
    if _OTHER_PENALTY in values:
        penalty = values[_OTHER_PENALTY]
        if named.setdefault(_PENALTY, penalty) != penalty:
            raise ValidationError(f"differs from {_OTHER_PENALTY}; send one of the two", _PENALTY)
    return named

"""What requests for a generation have in common, whatever door they come to."""

from __future__ import annotations

from typing import Any

from mes.api.fields import Flag, Number, Seconds, Stops, Strict, Whole, between


class SamplingSchema(Strict):
    """How the tokens are chosen, and how many."""

    temperature = Number(allow_none=True, validate=between(0, 2))
    max_tokens = Whole(allow_none=True, validate=between(1, 1_000_000))
    top_p = Number(allow_none=True, validate=between(0, 1))
    top_k = Whole(allow_none=True, validate=between(0, 1_000_000))
    min_p = Number(allow_none=True, validate=between(0, 1))
    seed = Whole(allow_none=True, validate=between(0, 2**31 - 1))
    stop = Stops(allow_none=True)
    repeat_penalty = Number(allow_none=True, validate=between(0, 2))
    presence_penalty = Number(allow_none=True, validate=between(-2, 2))
    frequency_penalty = Number(allow_none=True, validate=between(-2, 2))


class AttemptsSchema(Strict):
    """How often a model is asked, how it is held to a schema, and for how long."""

    max_attempts = Whole(allow_none=True, validate=between(1, 4))
    constrain = Flag(allow_none=True)
    timeout = Seconds(allow_none=True)


# What the runtime knows by the same name; of the others an InferenceRequest has fields.
_OPTIONS = tuple(SamplingSchema(exclude=("temperature", "max_tokens")).fields)


def given_of(given: dict[str, Any]) -> dict[str, Any]:
    """What was said; null is as good as left out."""
    return {name: value for name, value in given.items() if value is not None}


def sampling_of(given: dict[str, Any]) -> dict[str, Any]:
    """The options of the runtime among what was said."""
    return {name: given[name] for name in _OPTIONS if name in given}

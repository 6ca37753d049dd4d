"""Timeouts: their detail names the seconds, the setting, the progress and the remedies."""

from __future__ import annotations

from typing import Any

import pytest

from mes.domain.timeouts import naming_timeout
from mes.errors import GenerationAborted, GenerationTimeout
from tests import fakes

IN_CATALOG = "timeout of the model in the catalog"


def detail(operation: str, tokens: int = 0, setting: str = "DEFAULT_TIMEOUT", **more: Any) -> str:
    error = GenerationTimeout("too slow")
    error.generated_tokens = tokens
    spec = fakes.spec(timeout_seconds=2.5, timeout_setting=setting)
    with pytest.raises(GenerationTimeout) as caught, naming_timeout(operation, spec, **more):
        raise error
    assert caught.value.generated_tokens == tokens
    return caught.value.detail


def test_the_setting_of_the_model_is_named():
    assert detail("generation", 7, IN_CATALOG, max_tokens=100) == (
        f"the generation did not end within 2.5 s ({IN_CATALOG}): 7 tokens were generated, of at "
        "most 100; raise it, or set timeout in the request, or lower max_tokens"
    )


def test_the_timeout_of_the_request_is_named_if_it_has_one():
    assert detail("conversion of token ids", requested_seconds=1.0) == (
        "the conversion of token ids did not end within 1 s (timeout of the request); raise it"
    )


def test_other_remedies_may_be_named():
    assert detail("embedding", remedy="send fewer texts").endswith("raise it, or send fewer texts")


def test_other_errors_stay_as_they_are():
    error = GenerationAborted("broke off")
    with pytest.raises(GenerationAborted) as caught, naming_timeout("generation", fakes.spec()):
        raise error
    assert caught.value is error

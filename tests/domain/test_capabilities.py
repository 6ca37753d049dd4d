"""Capabilities: a request that a model cannot serve is refused before a load."""

from __future__ import annotations

import pytest

from mes.domain import InferenceRequest, Message, PulledModel
from mes.domain.capabilities import EMBEDDING, THINKING, naming_fields, not_capable
from mes.errors import NotCapable
from mes.inference import require_capability, required_capabilities
from tests.fakes import DIGEST, spec

PICTURE = Message("user", "What is this?", images=("iVBORw0KGgo=",))
REQUESTS = {
    "tools": InferenceRequest("a", tools=({"type": "function", "function": {"name": "f"}},)),
    "vision": InferenceRequest("a", messages=(PICTURE,)),
    "thinking": InferenceRequest("a", think="low"),
    "completion": InferenceRequest("a", prompt="Hello"),
}


def pulled(*capabilities: str) -> dict[str, PulledModel]:
    model = PulledModel("a:latest", DIGEST, 10, "Q4_0", "1B", capabilities or None)
    return {"a:latest": model}


@pytest.mark.parametrize(("capability", "request_"), REQUESTS.items())
def test_the_required_capabilities_follow_from_the_request(capability, request_):
    assert set(required_capabilities(request_)) == {"completion", capability}


@pytest.mark.parametrize("capability", [*REQUESTS, EMBEDDING])
def test_a_missing_capability_is_refused_with_the_pointer(capability):
    others = {*REQUESTS, EMBEDDING} - {capability}
    with pytest.raises(NotCapable) as caught:
        require_capability(capability, spec("a"), pulled(*others), pointer="/place")
    assert [mistake.pointer for mistake in caught.value.mistakes] == ["/place"]
    assert caught.value.detail.startswith("a ")


@pytest.mark.parametrize("known", [{}, pulled(), pulled("tools")])
def test_a_model_that_can_or_may_serve_the_request_is_accepted(known):
    require_capability("tools", spec("a"), known, pointer="/tools")


@pytest.mark.parametrize(
    ("pointer", "remedy"),
    [
        ("/think", "set think to false"),
        ("/reasoning_effort", "set reasoning_effort to none"),
        ("/reasoning/effort", "set reasoning.effort to none"),
        ("/chat_template_kwargs/thinking", "set chat_template_kwargs.thinking to false"),
    ],
)
def test_the_error_of_the_runtime_names_the_field_that_the_client_wrote(pointer, remedy):
    words = f"^my-model cannot think; {remedy}"
    pointers = {THINKING: pointer}
    with pytest.raises(NotCapable, match=words) as caught, naming_fields("my-model", pointers):
        raise not_capable(THINKING, "tag:latest", pointer="/think")
    assert [mistake.pointer for mistake in caught.value.mistakes] == [pointer]

"""The short requests of the client, whose response is one body, at the wire of `requests`.

The library `responses` replaces `HTTPAdapter.send`, so that these tests cover the requests, the
parsing of the responses and the errors of refusals. Time, framing and connections are tested with
a scripted runtime.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import requests
from responses import RequestsMock
from responses.matchers import header_matcher, json_params_matcher

from mes.domain import LoadedModel, ModelCard, PulledModel
from mes.errors import MesError, ModelNotPulled, RuntimeReplyInvalid, RuntimeUnavailable
from mes.ollama import OllamaRuntime
from tests.fakes import spec

URL = "http://ollama.test:11434"
DIGEST = "14f8ac0f" * 8


@pytest.fixture
def wire() -> Iterator[RequestsMock]:
    with RequestsMock() as wire:
        yield wire


@pytest.fixture
def runtime(runtime_client: Callable[..., OllamaRuntime]) -> OllamaRuntime:
    return runtime_client(URL)


def test_version_returns_the_name_and_the_version(wire, runtime):
    wire.get(f"{URL}/api/version", json={"version": "0.33.0"})
    assert runtime.version() == "ollama 0.33.0"


def test_a_runtime_may_send_its_own_name(wire, runtime):
    wire.get(f"{URL}/api/version", json={"version": "1.2", "runtime": "mes-embedded"})
    assert runtime.version() == "mes-embedded 1.2"


@pytest.mark.parametrize("document", [{}, {"version": None}])
def test_an_absent_version_is_unknown(wire, runtime, document):
    wire.get(f"{URL}/api/version", json=document)
    assert runtime.version() == "ollama unknown"


def test_loaded_returns_the_models_in_memory(wire, runtime):
    model = {
        "name": "Tiny",
        "digest": DIGEST,
        "details": {"quantization_level": "Q4_K_M"},
        "size": 300,
        "size_vram": 100,
        "context_length": 512,
    }
    wire.get(f"{URL}/api/ps", json={"models": [model]})

    assert runtime.loaded() == [
        LoadedModel(
            name="tiny:latest",
            digest=f"sha256:{DIGEST}",
            quantization="Q4_K_M",
            size_bytes=300,
            vram_bytes=100,
            context_length=512,
        )
    ]


def test_absent_fields_of_a_loaded_model_are_empty(wire, runtime):
    wire.get(f"{URL}/api/ps", json={"models": [{"name": "Tiny"}]})

    (model,) = runtime.loaded()

    assert model.name == "tiny:latest"
    assert (model.digest, model.size_bytes, model.context_length) == ("", 0, None)


@pytest.mark.parametrize("document", [{}, {"models": None}, {"models": []}])
def test_without_models_the_lists_are_empty(wire, runtime, document):
    wire.get(f"{URL}/api/ps", json=document)
    wire.get(f"{URL}/api/tags", json=document)
    assert runtime.loaded() == []
    assert runtime.pulled() == []


def test_pulled_returns_the_models_on_disk(wire, runtime):
    details = {"quantization_level": "Q8_0", "parameter_size": "134.52M"}
    model = {"name": "tiny:q8", "digest": f"sha256:{DIGEST}", "size": 300, "details": details}
    wire.get(f"{URL}/api/tags", json={"models": [model]})

    assert runtime.pulled() == [
        PulledModel(
            name="tiny:q8",
            digest=f"sha256:{DIGEST}",
            size_bytes=300,
            quantization="Q8_0",
            parameter_size="134.52M",
        )
    ]


@pytest.mark.parametrize(
    ("entry", "slots"),
    [
        ({"details": {"family": "llama"}}, None),
        ({"details": {"family": "lfm2"}}, 1),
        ({"slots": 4, "details": {"family": "lfm2"}}, 4),
        ({"slots": 0}, None),
        ({"slots": True}, None),
    ],
)
def test_the_slots_of_a_model_are_as_reported_or_those_of_its_family(wire, runtime, entry, slots):
    wire.get(f"{URL}/api/tags", json={"models": [{"name": "tiny", **entry}]})
    assert [model.slots for model in runtime.pulled()] == [slots]


def test_card_returns_the_properties_of_a_model(wire, runtime):
    shown = {
        "details": {"quantization_level": "Q4_1", "parameter_size": "134.52M"},
        "model_info": {"general.architecture": "llama", "llama.context_length": 8192},
        "capabilities": ["completion", "tools"],
    }
    asks_for_the_model = json_params_matcher({"model": "tiny"})
    wire.post(f"{URL}/api/show", json=shown, match=[asks_for_the_model])

    assert runtime.card("tiny") == ModelCard(
        quantization="Q4_1",
        parameter_size="134.52M",
        context_length=8192,
        capabilities=("completion", "tools"),
    )


def test_absent_fields_of_a_card_are_empty(wire, runtime):
    wire.post(f"{URL}/api/show", json={})
    card = runtime.card("tiny")
    assert (card.quantization, card.context_length, card.capabilities) == ("", None, ())


def test_an_unload_requests_that_the_model_is_not_kept(wire, runtime):
    body = {"model": "tiny", "prompt": "", "stream": True, "keep_alive": 0}
    wire.post(f"{URL}/api/generate", body=b'{"done": true}\n', match=[json_params_matcher(body)])
    runtime.unload("tiny")


def test_a_load_sets_for_how_long_the_model_is_kept_without_use(wire, runtime):
    body = {"model": "a:latest", "prompt": "", "stream": True, "keep_alive": 600}
    body |= {"options": {}, "shift": False}
    wire.post(f"{URL}/api/generate", body=b'{"done": true}\n', match=[json_params_matcher(body)])
    runtime.load(spec("a"), deadline=time.monotonic() + 5)


@pytest.mark.parametrize("body", [b"", b'{"done": false}\n', b"{}\n"])
def test_an_unload_that_does_not_report_done_is_an_error(wire, runtime, body):
    wire.post(f"{URL}/api/generate", body=body)
    with pytest.raises(RuntimeReplyInvalid, match="did not say that it was done"):
        runtime.unload("tiny")


def test_a_deletion_names_the_model(wire, runtime):
    wire.delete(f"{URL}/api/delete", match=[json_params_matcher({"model": "tiny"})])
    runtime.delete("tiny")


def test_a_model_that_is_not_there_is_not_pulled_for_a_deletion(wire, runtime):
    wire.delete(f"{URL}/api/delete", status=404, json={"error": "model 'tiny' not found"})
    with pytest.raises(ModelNotPulled):
        runtime.delete("tiny")


def test_the_headers_are_those_of_mes(wire, runtime):
    headers = {
        "User-Agent": "mes",
        "Accept-Encoding": "identity",
        "Content-Type": "application/json",
    }
    exact = header_matcher(headers, strict_match=True)
    wire.get(f"{URL}/api/version", json={}, match=[exact])
    runtime.version()


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"<html>hello</html>",
        b'{"models": 1}',
        b'{"models": [1]}',
        b'{"models": [{"name": 1}]}',
        b'{"models": [{"name": "\xff"}]}',
        b'{"models": [{"size": -1}]}',
        b'{"models": [{"size": true}]}',
        b'{"models": [{"size": 1.5}]}',
        b'{"models": [{"size": NaN}]}',
        b'{"models": [{"digest": 1}]}',
        b'{"models": [{"details": []}]}',
    ],
)
def test_an_invalid_list_of_models_is_an_error(wire, runtime, body):
    wire.get(f"{URL}/api/ps", body=body)
    wire.get(f"{URL}/api/tags", body=body)
    for listing in (runtime.loaded, runtime.pulled):
        with pytest.raises(RuntimeReplyInvalid):
            listing()


@pytest.mark.parametrize(
    "shown",
    [
        {"model_info": []},
        {"model_info": {"general.architecture": 1}},
        {"model_info": {"general.architecture": "llama", "llama.context_length": "8192"}},
        {"capabilities": "completion"},
        {"details": "Q4_1"},
    ],
    ids=json.dumps,
)
def test_an_invalid_card_is_an_error(wire, runtime, shown):
    wire.post(f"{URL}/api/show", json=shown)
    with pytest.raises(RuntimeReplyInvalid):
        runtime.card("tiny")


REFUSALS: dict[str, tuple[int, Any, type[MesError], str]] = {
    "a missing model": (404, {"error": "not found"}, ModelNotPulled, "run `ollama pull tiny:q8`"),
    "a missing route": (404, "404 page not found", RuntimeReplyInvalid, "answered 404$"),
    "an invalid name": (400, {"error": "invalid name"}, RuntimeReplyInvalid, "400: invalid name$"),
    "an internal error": (500, {"error": "oops"}, RuntimeReplyInvalid, "answered 500: oops$"),
    "an error that is not text": (500, {"error": 7}, RuntimeReplyInvalid, "answered 500$"),
    "a nested error": (500, {"error": '{"message": "x"}'}, RuntimeReplyInvalid, "500: x$"),
    "a page of a proxy": (502, "<html>Bad Gateway</html>", RuntimeReplyInvalid, "answered 502$"),
    "a busy runtime": (503, {"error": "server busy"}, RuntimeUnavailable, "^server busy$"),
    "a busy proxy": (429, "slow down", RuntimeUnavailable, "^the runtime is busy$"),
}


@pytest.mark.parametrize(("status", "body", "error", "detail"), REFUSALS.values(), ids=REFUSALS)
def test_a_refusal_is_the_error_that_it_stands_for(wire, runtime, status, body, error, detail):
    text = body if isinstance(body, str) else json.dumps(body)
    wire.post(f"{URL}/api/show", body=text, status=status)
    with pytest.raises(error, match=detail):
        runtime.card("tiny:q8")


def test_a_refused_unload_is_an_error(wire, runtime):
    wire.post(f"{URL}/api/generate", json={"error": "no"}, status=400)
    with pytest.raises(RuntimeReplyInvalid):
        runtime.unload("tiny")


def test_unloading_a_missing_model_does_nothing(wire, runtime):
    wire.post(f"{URL}/api/generate", json={"error": "not found"}, status=404)
    runtime.unload("tiny")


@pytest.mark.parametrize(
    ("header", "seconds"), [("7", 7.0), ("0", 1.0), ("999999", 60.0), ("soon", 2.0), ("", 2.0)]
)
def test_a_busy_runtime_names_the_time_to_wait(wire, runtime, header, seconds):
    wire.get(f"{URL}/api/ps", status=503, headers={"Retry-After": header})
    with pytest.raises(RuntimeUnavailable) as caught:
        runtime.loaded()
    assert caught.value.retry_after == seconds


def test_a_compressed_response_is_refused(wire, runtime):
    wire.get(f"{URL}/api/version", body=b"...", headers={"Content-Encoding": "gzip"})
    with pytest.raises(RuntimeReplyInvalid, match="encoding"):
        runtime.version()


def test_a_response_longer_than_the_limit_is_an_error(wire, runtime_client):
    wire.get(f"{URL}/api/version", json={"version": "x" * 1000})
    with pytest.raises(RuntimeReplyInvalid, match="more than 1000 bytes"):
        runtime_client(URL, max_reply_bytes=1000).version()


def test_a_redirect_is_not_followed(wire, runtime):
    wire.get(f"{URL}/api/version", status=302, headers={"Location": "http://elsewhere.test/"})
    with pytest.raises(RuntimeReplyInvalid, match="302"):
        runtime.version()


def test_a_connection_that_cannot_be_opened_is_an_unavailable_runtime(wire, runtime):
    wire.get(f"{URL}/api/version", body=requests.ConnectionError("refused"))
    with pytest.raises(RuntimeUnavailable, match=r"the runtime at ollama\.test:11434 cannot be"):
        runtime.version()

"""`POST /v1/inference`: responses, errors and verdicts, over a fake runtime."""

from __future__ import annotations

import json
from contextlib import closing

import pytest

from mes import errors
from mes.app import create_app
from mes.config import settings
from mes.scheduling.runtime_status import RuntimeStatus
from tests.api.conftest import KEY

PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "number"}},
    "required": ["name", "age"],
}
JOHN = '{"name": "John Smith", "age": 25}'


def test_an_answer_has_the_promised_shape(ask):
    answer = ask(temperature=0.5, seed=7, max_tokens=50).get_json()
    assert answer["success"] is True
    assert answer["model_id"] == "smollm2:135m"
    assert answer["output"] == "Paris"
    assert answer["finish_reason"] == "stop"
    assert answer["usage"] == {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
    assert answer["latency_ms"] >= 0
    assert answer["timings"] == {
        "queue_ms": 0,
        "load_ms": answer["timings"]["load_ms"],
        "prompt_ms": 1,
        "generation_ms": 50,
        "time_to_first_token_ms": 3,
        "tokens_per_second": 100.0,
        "cold_start": True,
    }
    assert answer["parsed"] is None
    assert answer["structured"] is None
    assert answer["provenance"]["runtime"] == "fake 1.0"
    assert answer["provenance"]["model_digest"].startswith("sha256:")
    assert answer["provenance"]["quantization"] == "Q4_0"
    assert answer["provenance"]["prefix_cache"] == "unknown"
    assert answer["provenance"]["options"] == {
        "num_ctx": 4096,
        "temperature": 0.5,
        "num_predict": 50,
        "seed": 7,
    }


def test_fields_that_are_left_out_come_from_the_catalog(ask, runtime):
    assert ask(model_id="ORG/prose:q4", temperature=None, max_tokens=None).status_code == 200
    options = runtime.prompts[0].options
    assert (options["temperature"], options["num_predict"]) == (0.2, 77)


def test_a_whole_number_may_be_written_with_a_point(ask, runtime):
    assert ask(max_tokens=50.0).status_code == 200
    assert json.dumps(runtime.prompts[0].options["num_predict"]) == "50"


def test_a_seed_is_always_chosen_and_reported(ask):
    seeds = {ask().get_json()["provenance"]["options"]["seed"] for _ in range(3)}
    assert len(seeds) == 3


def test_a_client_of_the_original_interface_works_unchanged(ask):
    response = ask(
        prompt="Extract the name and age from: John Smith is 25 years old",
        temperature=0.1,
        system_prompt=None,
        max_tokens=100,
        json_schema=None,
        timeout=30,
    )
    answer = response.get_json()
    assert response.status_code == 200
    assert isinstance(answer["output"], str)
    assert set(answer["usage"]) == {"prompt_tokens", "completion_tokens", "total_tokens"}


@pytest.mark.parametrize(
    ("text", "finish_reason", "verdict"),
    [
        (JOHN, "stop", "valid"),
        (f"Sure! Here it is:\n```json\n{JOHN}\n```\nAnything else?", "stop", "valid"),
        (f"The answer is {JOHN}.", "stop", "valid"),
        ('{"name": "John Smith"}', "stop", "schema_violation"),
        ("John Smith, 25", "stop", "not_json"),
        ('{"name": "John Smith", "a', "length", "truncated"),
        ("  ", "stop", "empty"),
        ('{"name": "John", "age": 25, "age": 26}', "stop", "not_json"),
        ('{"name": "John", "age": NaN}', "stop", "not_json"),
        ('{"name": "\\ud800", "age": 1}', "stop", "not_json"),
    ],
)
def test_the_verdict_reports_whether_the_answer_fits_the_schema(
    ask, runtime, text, finish_reason, verdict
):
    runtime.answers, runtime.finish_reason = lambda prompt: text, finish_reason
    response = ask(json_schema=PERSON)
    answer = response.get_json()
    assert response.status_code == 200
    assert answer["structured"]["verdict"] == answer["structured"]["first_verdict"] == verdict
    assert answer["output"] == text
    assert answer["success"] is (verdict == "valid")
    if verdict != "valid":
        assert answer["code"] == verdict
        assert answer["error"]
        assert answer["parsed"] is None


def test_a_violation_names_its_place_and_its_keyword(ask, runtime):
    runtime.answers = lambda prompt: '{"name": 5, "age": 1}'
    assert ask(json_schema=PERSON).get_json()["structured"]["errors"] == [
        {"pointer": "/name", "keyword": "type", "detail": 'the value is not of type "string"'}
    ]


def test_format_is_asserted(ask, runtime):
    runtime.answers = lambda prompt: '"yesterday"'
    answer = ask(json_schema={"type": "string", "format": "date"}).get_json()
    assert answer["structured"]["verdict"] == "schema_violation"


def test_the_schema_goes_to_a_model_with_json_mode_as_format(ask, runtime):
    runtime.answers = lambda prompt: JOHN
    ask(json_schema=PERSON)
    assert runtime.prompts[0].format == PERSON
    assert list(runtime.prompts[0].format["properties"]) == ["name", "age"]


def test_a_model_without_json_mode_gets_the_schema_in_the_prompt(ask, runtime):
    runtime.answers = lambda prompt: JOHN
    answer = ask(model_id="org/prose:q4", json_schema=PERSON).get_json()
    assert runtime.prompts[0].format is None
    assert json.dumps(PERSON, separators=(",", ":")) in runtime.prompts[0].text
    assert answer["parsed"] == {"name": "John Smith", "age": 25}


def test_a_schema_the_runtime_refuses_goes_into_the_prompt_and_that_is_remembered(ask, runtime):
    schema = {**PERSON, "title": "refused"}
    runtime.answers = lambda p: errors.SchemaRefused("no grammar") if p.format == schema else JOHN
    answer = ask(json_schema=schema).get_json()
    assert answer["success"] is True
    assert (answer["structured"]["mode"], answer["structured"]["attempts"]) == ("json", 1)
    assert [prompt.format for prompt in runtime.prompts] == [schema, "json"]
    assert '"title":"refused"' in runtime.prompts[1].text
    ask(json_schema=schema)
    assert [prompt.format for prompt in runtime.prompts] == [schema, "json", "json"]


@pytest.mark.parametrize(
    ("schema", "code"),
    [
        ({"type": "strin"}, "schema_invalid"),
        ({"$ref": "http://example.com/schema"}, "schema_unsafe"),
        ({"$ref": "file:///etc/passwd"}, "schema_unsafe"),
        ({"$ref": "#/nowhere"}, "schema_invalid"),
        ({"$schema": "http://example.com/dialect"}, "schema_invalid"),
        ({"pattern": "("}, "schema_invalid"),
        ({"properties": 5}, "schema_invalid"),
    ],
)
def test_an_invalid_schema_is_refused_before_a_model_is_loaded(ask, runtime, schema, code):
    response = ask(json_schema=schema)
    assert response.status_code == 422
    assert response.get_json()["code"] == code
    assert response.get_json()["errors"][0]["pointer"].startswith("/json_schema")
    assert runtime.loads == {}


@pytest.mark.parametrize(
    ("fields", "pointer"),
    [
        ({"prompt": ""}, "/prompt"),
        ({"prompt": None}, "/prompt"),
        ({"prompt": 5}, "/prompt"),
        ({"model_id": ""}, "/model_id"),
        ({"temperature": "0.5"}, "/temperature"),
        ({"temperature": True}, "/temperature"),
        ({"temperature": 2.1}, "/temperature"),
        ({"max_tokens": 0}, "/max_tokens"),
        ({"max_tokens": 1.5}, "/max_tokens"),
        ({"max_tokens": 0.0}, "/max_tokens"),
        ({"max_tokens": 1e300}, "/max_tokens"),
        ({"timeout": 0}, "/timeout"),
        ({"timeout": 1e308}, "/timeout"),
        ({"stop": [1]}, "/stop"),
        ({"json_schema": "{}"}, "/json_schema"),
        ({"num_gpu": 1}, "/num_gpu"),
    ],
)
def test_a_mistake_is_named_with_its_field(ask, runtime, fields, pointer):
    response = ask(**fields)
    problem = response.get_json()
    assert (response.status_code, problem["code"]) == (422, "request_invalid")
    assert [mistake["pointer"] for mistake in problem["errors"]] == [pointer]
    assert runtime.prompts == []


def test_a_misspelt_field_is_reported_with_the_similar_one(ask):
    problem = ask(temprature=0.5).get_json()
    assert problem["errors"] == [
        {
            "pointer": "/temprature",
            "detail": "is not a field of this request; did you mean temperature?",
        }
    ]


def test_all_mistakes_are_reported_at_once(ask):
    problem = ask(temperature=3, max_tokens=0, colour="red").get_json()
    assert {m["pointer"] for m in problem["errors"]} == {"/temperature", "/max_tokens", "/colour"}


def test_of_very_many_mistakes_the_first_20_are_reported(ask):
    problem = ask(**{f"temprature{number}": 0 for number in range(500)}).get_json()
    assert len(problem["errors"]) == 20
    assert problem["detail"].endswith("; and more")


def test_a_long_field_name_is_shortened(ask):
    response = ask(**{"x" * 10_000: 0})
    assert response.get_json()["errors"][0]["pointer"] == "/" + "x" * 200
    assert len(response.data) < 2000


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b'{"prompt": NaN}',
        b'{"model_id": "a", "model_id": "b"}',
        b'{"prompt": "\xff"}',
        b'{"prompt": "\\ud800"}',
        b"[" * 15000,
        b'{"seed": 1e400}',
    ],
)
def test_a_body_that_is_not_json_is_malformed(client, content):
    response = client.post(
        "/v1/inference",
        data=content,
        headers={"X-API-Key": KEY, "Content-Type": "application/json"},
    )
    assert response.status_code == 400
    assert response.get_json()["code"] == "malformed_request"


@pytest.mark.parametrize("kind", ["text/plain", None, "application/json; charset=utf-16"])
def test_another_content_type_is_unsupported(client, kind):
    headers = {"X-API-Key": KEY} | ({"Content-Type": kind} if kind else {})
    response = client.post("/v1/inference", data=b"{}", headers=headers)
    assert (response.status_code, response.get_json()["code"]) == (415, "unsupported_media_type")


def test_a_body_over_the_limit_is_too_large(ask):
    response = ask(prompt="x" * 30000)
    assert (response.status_code, response.get_json()["code"]) == (413, "content_too_large")


@pytest.mark.parametrize("model_id", ["nope", "off:1b", "../../etc/passwd", "a b", "x" * 10000])
def test_a_model_that_may_not_be_run_is_not_found(ask, model_id):
    response = ask(model_id=model_id)
    assert (response.status_code, response.get_json()["code"]) == (404, "model_not_found")


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (errors.GenerationAborted("broke off"), 502),
        (errors.RuntimeReplyInvalid("nonsense"), 502),
        (errors.RuntimeUnavailable("down"), 503),
        (errors.PromptTooLong("3010 tokens do not fit into 512"), 422),
        (errors.ModelNotPulled("not pulled"), 404),
        (errors.ClientDisconnected("gone"), 499),
        (errors.LoadTimeout("too slow"), 504),
    ],
)
def test_an_error_of_the_service_has_its_status(ask, runtime, error, status):
    runtime.answers = lambda prompt: error
    response = ask()
    problem = response.get_json()
    assert response.status_code == problem["status"] == status
    assert response.mimetype == "application/problem+json"
    assert problem["code"] == error.code
    assert problem["success"] is False
    assert problem["error"] == problem["detail"] == error.detail
    assert ("Retry-After" in response.headers) is (status == 503)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("fields", "setting", "remedy"),
    [
        ({}, "600 s (DEFAULT_TIMEOUT)", "raise it, or set timeout in the request, or"),
        ({"timeout": 0.5}, "0.5 s (timeout of the request)", "raise it, or"),
    ],
)
def test_a_timeout_names_its_seconds_its_setting_and_the_progress(
    ask, runtime, stream, fields, setting, remedy
):
    error = errors.GenerationTimeout("too slow")
    error.generated_tokens = 12
    runtime.answers = lambda prompt: error
    problem = json.loads(ask(stream=stream, **fields).text.splitlines()[-1])
    assert (problem["status"], problem["code"]) == (504, "generation_timeout")
    assert problem["detail"] == (
        f"the generation did not end within {setting}: 12 tokens were generated, of at most 77; "
        f"{remedy} lower max_tokens"
    )


@pytest.mark.parametrize(
    ("error", "header"),
    [
        (errors.GenerationTimeout("would take as long again"), "false"),
        (errors.RequestInvalid("the runtime refuses the request"), "false"),
        (errors.PromptTooLong("too long"), "false"),
        (errors.ModelNotPulled("not pulled"), "false"),
        (errors.LoadTimeout("may be faster next time"), None),
        (errors.QueueFull("full"), None),
        (errors.GenerationAborted("broke off"), None),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_clients_are_asked_not_to_repeat_a_request_in_vain(ask, runtime, error, header, stream):
    ask()  # so that no stream begins with the load of the model
    runtime.answers = lambda prompt: error
    assert ask(stream=stream).headers.get("X-Should-Retry") == header


def test_numbers_in_errors_are_written_out(ask):
    details = {
        mistake["pointer"]: mistake["detail"]
        for mistake in ask(max_tokens=0, temperature=3, timeout=1e9).get_json()["errors"]
    }
    assert details["/max_tokens"] == "must be between 1 and 1000000"
    assert details["/temperature"] == "must be between 0 and 2"
    assert details["/timeout"] == "must be more than 0 and at most 3600 seconds"


@pytest.mark.parametrize("bug", [ZeroDivisionError, RecursionError, MemoryError])
def test_an_unexpected_exception_is_logged_and_not_shown(ask, runtime, caplog, bug):
    def fail(prompt):
        raise bug("an internal secret")

    runtime.answers = fail
    response = ask()
    assert (response.status_code, response.get_json()["code"]) == (500, "internal_error")
    assert "secret" not in response.get_data(as_text=True)
    assert any(record.exc_info for record in caplog.records)
    runtime.answers = lambda prompt: "Paris"
    assert ask().status_code == 200


def test_a_body_that_is_not_an_object_is_invalid(client):
    response = client.post("/v1/inference", json=[None, None], headers={"X-API-Key": KEY})
    assert (response.status_code, response.get_json()["code"]) == (422, "request_invalid")


@pytest.mark.parametrize(
    ("fields", "count"),
    [({"logprobs": True}, 0), ({"top_logprobs": 2}, 2), ({"logprobs": True, "top_logprobs": 1}, 1)],
)
def test_each_token_has_its_probability_if_requested(ask, runtime, fields, count):
    runtime.answers = lambda prompt: "Paris, of course"
    answer = ask(**fields).get_json()
    likeliest = {"token": " of", "logprob": -0.25, "bytes": [32, 111, 102]}
    assert answer["logprobs"][1] == {**likeliest, "top_logprobs": [likeliest] * count}
    assert "".join(each["token"] for each in answer["logprobs"]) == answer["output"]


def test_probabilities_are_absent_unless_requested(ask):
    assert "logprobs" not in ask().get_json()
    assert "logprobs" not in ask(logprobs=False, top_logprobs=3).get_json()


@pytest.fixture
def start_and_ask(tmp_path, catalog_path, runtime):
    """Return a function that starts the service, asks once and stops; the state is kept."""
    environment = {
        "MES_API_KEY": KEY,
        "MODELS_CONFIG_PATH": str(catalog_path),
        "STATE_DIR": str(tmp_path / "state"),
        "QUEUE_TIMEOUT": "5",
    }

    def start():
        app = create_app(settings.load(environment, dotenv=None), runtime=runtime)
        with closing(app.extensions["mes"]):
            document = {"model_id": "smollm2:135m", "prompt": "Hello"}
            headers = {"X-API-Key": KEY}
            return app.test_client().post("/v1/inference", json=document, headers=headers)

    return start


@pytest.mark.parametrize("is_in_memory", [True, False])
def test_the_first_answer_after_a_restart_reports_its_load(start_and_ask, runtime, is_in_memory):
    assert start_and_ask().get_json()["timings"]["cold_start"] is True
    if not is_in_memory:
        runtime.in_memory.clear()
    runtime.loads.clear()
    answer = start_and_ask().get_json()
    assert answer["timings"]["cold_start"] is not is_in_memory
    # The leader may renew the time of a model that it has found in memory, by a load as well.
    assert runtime.loads.total() in ((0, 1) if is_in_memory else (1,))


def test_the_first_answer_names_the_runtime(app, runtime, ask):
    """Also before the leader has listed the models for the first time."""
    app.extensions["mes"].leader.stop()
    app.extensions["mes"].runtime_status.write(RuntimeStatus())
    assert ask().get_json()["provenance"]["runtime"] == "fake 1.0"

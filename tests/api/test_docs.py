"""The page at /docs: readable offline, and all its links have targets."""

from __future__ import annotations

import base64
import hashlib
import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from html.parser import HTMLParser

import pytest

from mes.api.openapi import docs_page


class ParsedPage(HTMLParser):
    """The tags, ids, links and event handlers of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.handlers: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attributes:
            if name == "id":
                self.ids.append(value or "")
            if name in ("href", "src"):
                self.links.append(value or "")
            if name.startswith("on") or name == "style":
                self.handlers.append(name)


@pytest.fixture
def response(client):
    return client.get("/docs")


@pytest.fixture
def parsed(response):
    return ParsedPage(response.get_data(as_text=True))


def test_the_page_needs_no_other_resources_and_no_script(parsed):
    assert not {"script", "img", "link", "iframe", "form"} & set(parsed.tags)
    assert parsed.handlers == []
    assert {link for link in parsed.links if not link.startswith("#")} == {"openapi.json"}


def test_every_link_has_a_target_and_every_id_is_unique(parsed):
    assert {link[1:] for link in parsed.links if link.startswith("#")} <= set(parsed.ids)
    assert len(parsed.ids) == len(set(parsed.ids))


def test_every_operation_and_every_schema_is_on_the_page(client, parsed):
    document = client.get("/openapi.json").get_json()
    operations = {
        each["operationId"] for path in document["paths"].values() for each in path.values()
    }
    schemas = {f"schema-{name}" for name in document["components"]["schemas"]}
    assert operations | schemas <= set(parsed.ids)


def test_the_policy_allows_its_own_style_and_nothing_else(response):
    style = re.search("<style>(.*)</style>", response.get_data(as_text=True), re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    policy = dict(
        each.strip().split(" ", 1)
        for each in response.headers["Content-Security-Policy"].split(";")
    )
    assert policy == {
        "default-src": "'none'",
        "style-src": f"'sha256-{digest}'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }


def test_the_page_shows_the_host_of_the_request_but_no_markup_from_it(client):
    page = client.get("/docs", headers={"Host": "localhost:8001"}).get_data(as_text=True)
    assert "MES_URL=http://localhost:8001 " in page
    answer = client.get("/docs", headers={"Host": "<script>"})
    assert answer.status_code == 400


def test_first_requests_at_the_same_time_build_the_page_once(app, monkeypatch):
    together, build_page, built = threading.Barrier(4), docs_page.build_page, []

    def build(document):
        built.append(document)
        time.sleep(0.1)  # long enough for the other requests to come in
        return build_page(document)

    def get(_: int) -> bytes:
        together.wait()
        return app.test_client().get("/docs").data

    docs_page._page_of.cache_clear()
    docs_page._html_of.cache_clear()
    monkeypatch.setattr(docs_page, "build_page", build)
    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(get, range(4)))) == 1
    assert len(built) == 1

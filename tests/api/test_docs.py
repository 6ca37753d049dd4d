"""The page at /docs: readable offline, and everything in it leads somewhere."""

from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser

import pytest


class Seen(HTMLParser):
    """The tags of a page, what they refer to, and what can be referred to."""

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
def seen(response):
    return Seen(response.get_data(as_text=True))


def test_it_needs_nothing_from_elsewhere_and_no_script(seen):
    assert not {"script", "img", "link", "iframe", "form"} & set(seen.tags)
    assert seen.handlers == []
    assert {link for link in seen.links if not link.startswith("#")} == {"openapi.json"}


def test_every_link_in_it_leads_somewhere_and_nothing_has_two_names(seen):
    assert {link[1:] for link in seen.links if link.startswith("#")} <= set(seen.ids)
    assert len(seen.ids) == len(set(seen.ids))


def test_every_operation_and_every_shape_has_a_place_in_it(client, seen):
    told = client.get("/openapi.json").get_json()
    operations = {each["operationId"] for path in told["paths"].values() for each in path.values()}
    shapes = {f"shape-{name}" for name in told["components"]["schemas"]}
    assert operations | shapes <= set(seen.ids)


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


def test_it_shows_the_address_it_was_asked_under_and_no_markup_of_others(client):
    page = client.get("/docs", headers={"Host": "models.example:8001"}).get_data(as_text=True)
    assert "MES_URL=http://models.example:8001 " in page
    answer = client.get("/docs", headers={"Host": "<script>"})
    assert answer.status_code == 400

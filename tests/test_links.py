"""Every link, anchor and path in the documents leads to something that exists."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import chain, count, pairwise
from pathlib import Path

import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).parent.parent
DOCUMENTS = [
    *sorted(ROOT.glob("*.md")),
    *sorted((ROOT / "docs").glob("*.md")),
    ROOT / "mes/embedded/README.md",
]
MARKDOWN = MarkdownIt("commonmark").enable("table")
# Paths as a text names them: `mes/api/problems.py`, `tests/ollama/`.
PATH = re.compile(r"(?:mes|tests|docs|bench|deploy|config)/[\w./-]+(?<![.])")
# Files that the service or the reader creates.
CREATED = {"config/models.embedded.json"}


def inline(path: Path) -> list[Token]:
    """Return the texts, links and code spans of a document, without code blocks."""
    return [
        child
        for token in MARKDOWN.parse(path.read_text())
        if token.type == "inline"
        for child in token.children or ()
    ]


def links(path: Path) -> list[str]:
    """Return the targets of the links to other places of this repository."""
    targets = [str(each.attrs["href"]) for each in inline(path) if each.type == "link_open"]
    return [target for target in targets if not re.match(r"\w+:", target)]


def anchors(path: Path) -> set[str]:
    """Return the anchors that GitHub makes of the headings of a document."""
    found: set[str] = set()
    for opening, content in pairwise(MARKDOWN.parse(path.read_text())):
        if opening.type == "heading_open":
            heading = "".join(each.content for each in content.children or ())
            name = re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")
            numbered = (f"{name}-{number}" for number in count(1))
            found.add(next(each for each in chain([name], numbered) if each not in found))
    return found


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_every_link_leads_to_a_file_and_a_heading(document: Path):
    for target in links(document):
        file, _, anchor = target.partition("#")
        path = (document.parent / file).resolve() if file else document
        assert path.exists(), target
        assert not anchor or anchor in anchors(path), target


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_every_path_in_a_text_exists(document: Path):
    missing = [path for path in _paths(document) if not (ROOT / path).exists()]
    assert set(missing) <= CREATED


def _paths(document: Path) -> Iterator[str]:
    for span in inline(document):
        if span.type == "code_inline" and (found := PATH.fullmatch(span.content)):
            yield found[0]


def test_every_document_is_in_the_readmes_list():
    table = (ROOT / "README.md").read_text().partition("## Documentation")[2]
    for document in DOCUMENTS:
        if document.name != "README.md" or document.parent != ROOT:
            assert f"]({name_of(document)})" in table


def test_links_and_anchors_are_found(tmp_path: Path):
    document = tmp_path / "a.md"
    document.write_text(
        "# One `two`, three\n## Same\n## Same\n[a](b.md#c) `[d](e.md)` <https://f.g>\n"
    )
    assert links(document) == ["b.md#c"]
    assert anchors(document) == {"one-two-three", "same", "same-1"}

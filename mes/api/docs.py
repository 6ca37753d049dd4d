"""Documentation: this interface, for programs and for people."""

from __future__ import annotations

import base64
import hashlib
from functools import lru_cache
from pathlib import Path
from typing import Any

from flask import Blueprint, Flask, Response, current_app, render_template, request
from markupsafe import Markup, escape

from mes.api.answers import answer
from mes.api.promises import promises

bp = Blueprint("docs", __name__, template_folder="templates")


@bp.get("/openapi.json")
@promises({"application/json": {"type": "object"}})
def openapi() -> Response:
    """This interface as an OpenAPI 3.1 document."""
    return answer(document_of(_app()))


@bp.get("/docs")
@promises({"text/html": {"type": "string"}})
def show() -> Response:
    """The same, to be read."""
    style = _style()
    drawn = render_template(
        "docs.html", page=_page_of(_app()), url=request.root_url[:-1], style=style
    )
    return Response(drawn, headers={"Content-Security-Policy": _policy(style)})


@lru_cache(maxsize=1)
def document_of(app: Flask) -> dict[str, Any]:
    """The document of the application, made when somebody first asks for it."""
    # Not on top: most workers are never asked.
    from mes.api.openapi.document import document

    return document(app)


@lru_cache(maxsize=1)
def _page_of(app: Flask) -> Any:
    from mes.api.openapi.page import page

    return page(document_of(app))


def _app() -> Flask:
    app: Flask = current_app._get_current_object()  # type: ignore[attr-defined]
    return app


@lru_cache(maxsize=1)
def _style() -> Markup:
    return Markup(Path(__file__).with_name("templates").joinpath("docs.css").read_text())


def _policy(style: str) -> str:
    """Nothing but the page's own style: no script, no picture, nothing from elsewhere."""
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return (
        f"default-src 'none'; style-src 'sha256-{digest}'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


@bp.app_template_filter("prose")
def _prose(text: str) -> Markup:
    """Text in which backticks mark code."""
    pieces = [escape(piece) for piece in text.split("`")]
    coded = (f"<code>{piece}</code>" if at % 2 else piece for at, piece in enumerate(pieces))
    return Markup("").join(map(Markup, coded))

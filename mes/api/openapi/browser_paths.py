"""Paths that people and browsers try, which are not part of the API."""

from __future__ import annotations

from flask import Flask, Response


def install_browser_paths(app: Flask) -> None:
    """Lead browsers to the documentation, and answer their request for an icon."""
    app.add_url_rule("/", "root", lambda: _redirect_to("docs"), methods=["GET"])
    app.add_url_rule("/docs/", "docs_slash", lambda: _redirect_to("../docs"), methods=["GET"])
    app.add_url_rule("/favicon.ico", "icon", lambda: Response(status=204), methods=["GET"])


def _redirect_to(target: str) -> Response:
    # Relative, because a proxy may serve MES under a path of its own.
    text = "MES is running. The documentation of its API is at /docs\n"
    return Response(text, 302, {"Location": target}, mimetype="text/plain")

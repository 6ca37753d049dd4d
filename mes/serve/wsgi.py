"""The WSGI entry point; `mes serve` starts it under gunicorn."""

from mes.app import create_app
from mes.server.hooks import shared

app = create_app(shared=shared())

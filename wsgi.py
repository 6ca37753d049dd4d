"""The WSGI entry point. Start it with `gunicorn -c gunicorn.conf.py wsgi:app`."""

from mes.app import create_app
from mes.server.hooks import shared

app = create_app(shared=shared())

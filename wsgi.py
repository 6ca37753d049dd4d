"""The WSGI entry point: `gunicorn -c gunicorn.conf.py wsgi:app`."""

from mes.app import create_app
from mes.server.master import shared

app = create_app(shared=shared())

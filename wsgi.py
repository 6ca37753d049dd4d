"""The WSGI entry point in a checkout. Start it with `gunicorn -c gunicorn.conf.py wsgi:app`."""

from mes.serve.wsgi import app

__all__ = ["app"]

"""The service under gunicorn: its configuration and the WSGI entry point."""

"""The server: how gunicorn is made to serve MES."""

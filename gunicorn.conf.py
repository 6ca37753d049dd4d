"""The configuration of gunicorn in a checkout; that of the package is used.

gunicorn runs this file at each start and reload, and this file runs mes/serve/gunicorn_conf.py.
"""

import runpy

_names = runpy.run_module("mes.serve.gunicorn_conf")
globals().update({name: value for name, value in _names.items() if not name.startswith("_")})

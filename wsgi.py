"""The standalone bridge: `gunicorn -c gunicorn.conf.py wsgi:app`."""

from aibridge_flask import create_app

app = create_app()

"""gunicorn's configuration file. `AIBRIDGE_BIND` and `AIBRIDGE_WORKERS` set address and number of workers."""

from gevent import monkey

monkey.patch_all()  # before anything imports `requests`

from aibridge_flask.serving.configuration import configure

globals().update(configure())

"""How gunicorn serves the bridge. `AIBRIDGE_BIND` and `AIBRIDGE_WORKERS` change where and how many."""

from gevent import monkey

monkey.patch_all()  # before anything imports `requests`

import os

bind = os.environ.get("AIBRIDGE_BIND", "127.0.0.1:8080")
workers = int(os.environ.get("AIBRIDGE_WORKERS", "1"))
worker_class = "gevent"
worker_connections = 2000
keepalive = 75  # longer than nginx keeps an idle connection: else POSTs die on it
graceful_timeout = 600  # longer than the longest stream that should survive a reload
max_requests = 0  # a worker that drains for it leaves new connections hanging
limit_request_line = 8190
limit_request_field_size = 32768
control_socket_disable = True


def when_ready(server):
    """Tells what to set in which client."""
    from aibridge_flask import config
    from aibridge_flask.web.index import base_urls

    root = f"http://{bind}"
    for client, how in base_urls(config.load({}), root):
        server.log.info("%s: %s", client, how)

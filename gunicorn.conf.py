"""How gunicorn serves the bridge. `AIBRIDGE_BIND` and `AIBRIDGE_WORKERS` change where and how many."""

from gevent import monkey

monkey.patch_all()  # before anything imports `requests`

import contextlib
import gc
import os
import resource
import socket

import gevent
from gunicorn.workers.ggevent import GeventWorker

from aibridge_flask import ConfigError
from aibridge_flask.config import load, take
from aibridge_flask.observe import shared
from aibridge_flask.records import database


class DrainingWorker(GeventWorker):
    """Ends in good order: first it is not ready any more, while proxies look elsewhere; then it
    takes no more connections, ends those that wait between two requests, which gunicorn would
    keep for `keepalive` seconds, and lets running requests finish."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.between_requests = set()

    def handle(self, listener, client, addr):
        self.between_requests.add(client)
        try:
            super().handle(listener, client, addr)
        finally:
            self.between_requests.discard(client)

    def handle_request(self, listener_name, req, sock, addr):
        self.between_requests.discard(sock)
        super().handle_request(listener_name, req, sock, addr)
        if not self.alive:
            raise StopIteration  # gunicorn closes the connection
        self.between_requests.add(sock)

    def handle_exit(self, sig, frame):
        gevent.spawn(self.drain)

    def drain(self):
        bridge = getattr(self.wsgi, "extensions", {}).get("aibridge")
        if self.alive and bridge is not None:
            gevent.sleep(bridge.drain(self.wsgi))
        self.alive = False
        for client in list(self.between_requests):
            with contextlib.suppress(OSError):
                client._sock.shutdown(socket.SHUT_RD)  # the plain one: its reader sees an end, no error


# An open stream holds two files: client and upstream.
_soft, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (_hard, _hard))

# gunicorn runs this file again at HUP, where nothing that is raised would leave a server standing.
try:
    _wrong = take()
except ConfigError as error:
    raise SystemExit(f"aibridge: {error.message}") from None
if load({}).metrics.enabled:
    shared.begin(joins="GUNICORN_PID" in os.environ)

bind = os.environ.get("AIBRIDGE_BIND", "127.0.0.1:8080")
workers = int(os.environ.get("AIBRIDGE_WORKERS", "1"))
worker_class = DrainingWorker
worker_connections = 2000
keepalive = 75  # longer than nginx keeps an idle connection: else POSTs die on it
graceful_timeout = 600  # longer than the longest stream that should survive a reload
max_requests = 0  # a worker that drains for it leaves new connections hanging
limit_request_line = 8190
limit_request_field_size = 32768
control_socket_disable = True


def on_starting(server):
    """What a worker found wrong would stop it with a traceback; here it is one line."""
    try:
        database.migrate(database.connect(load({}).database_url))
    except ConfigError as error:
        raise SystemExit(f"aibridge: {error.message}") from None


def on_reload(server):
    if _wrong:
        server.log.error("the configuration is wrong, the old one stays: %s", _wrong)


def when_ready(server):
    """Tells what to set in which client."""
    from aibridge_flask.web.index import base_urls

    root = f"http://{bind}"
    for client, how in base_urls(load({}), root):
        server.log.info("%s: %s", client, how)


def child_exit(server, worker):
    shared.bury(worker.pid)


def on_exit(server):
    shared.end()


def post_worker_init(worker):
    gc.collect()
    gc.freeze()  # what stands now stays: later collections need not look at it

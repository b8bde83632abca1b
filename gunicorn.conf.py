"""How gunicorn serves the bridge. `AIBRIDGE_BIND` and `AIBRIDGE_WORKERS` change where and how many."""

from gevent import monkey

monkey.patch_all()  # before anything imports `requests`

import errno
import gc
import os
import resource
import select

import gevent.socket
from gunicorn.workers.ggevent import GeventWorker

from aibridge_flask import ConfigError
from aibridge_flask.config import load, take_snapshot
from aibridge_flask.observe import multiprocess
from aibridge_flask.records import database


class Connection(gevent.socket.socket):
    """A client's. Mostly all fits into the socket's buffer, for whose size gevent asks at each piece."""

    __slots__ = ()

    def sendall(self, data, flags=0):
        try:
            sent = self._sock.send(data, flags)
        except BlockingIOError:
            sent = 0
        if sent < len(data):
            super().sendall(memoryview(data)[sent:], flags)


class DrainingWorker(GeventWorker):
    """Ends in good order: first it is not ready any more, while proxies look elsewhere; then it
    takes no more connections, ends those that wait between two requests, which gunicorn would
    keep for `keepalive` seconds, and lets running requests finish."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.new, self.between_requests = {}, {}  # connections that wait, with their greenlets

    def handle(self, listener, client, addr):
        if type(client) is gevent.socket.socket:  # not TLS's
            client = Connection(client.family, client.type, client.proto, client.detach())
        self.new[client] = gevent.getcurrent()
        try:
            super().handle(listener, client, addr)
        finally:
            self.asked(client)

    def handle_request(self, listener_name, req, sock, addr):
        self.asked(sock)
        super().handle_request(listener_name, req, sock, addr)
        if not self.alive:
            raise StopIteration  # gunicorn closes the connection
        self.between_requests[sock] = gevent.getcurrent()

    def asked(self, client):
        self.new.pop(client, None)
        self.between_requests.pop(client, None)

    def handle_exit(self, sig, frame):
        gevent.spawn(self.drain)

    def drain(self):
        bridge = getattr(self.wsgi, "extensions", {}).get("aibridge")
        if self.alive and bridge is not None:
            gevent.sleep(bridge.drain(self.wsgi))
        self.alive = False
        in_hub = gevent.get_hub().loop.run_callback  # no request can come between look and end there
        in_hub(hang_up, self.between_requests)
        gevent.sleep(FIRST_REQUEST)
        in_hub(hang_up, self.new)


FIRST_REQUEST = 2.0  # seconds: who has connected just before is about to ask


def hang_up(waiting):
    for client, greenlet in list(waiting.items()):
        look = poll()
        look.register(client, select.POLLIN)
        if not look.poll(0):  # else a request has come, and is served
            greenlet.throw(ConnectionResetError(errno.ECONNRESET, "draining"))


poll = monkey.get_original("select", "poll")

# An open stream holds two files: client and upstream.
_soft, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (_hard, _hard))

# gunicorn runs this file again at HUP, where nothing that is raised would leave a server standing.
try:
    _wrong = take_snapshot()
except ConfigError as error:
    raise SystemExit(f"aibridge: {error.message}") from None
if load({}).metrics.enabled:
    multiprocess.set_up(joins="GUNICORN_PID" in os.environ)

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
    multiprocess.merge_dead_worker(worker.pid)


def on_exit(server):
    multiprocess.tear_down()


def post_worker_init(worker):
    gc.collect()
    gc.freeze()  # what stands now stays: later collections need not look at it
    gc.set_threshold(20_000, 20, 20)  # a request leaves next to nothing for them to find

"""Where spans go when they have ended: a real thread sends them to the collector, many at once.

The SDK's own batch processor starts its thread in whatever process is forked, and under gevent as a greenlet,
where encoding holds up the requests: https://github.com/open-telemetry/opentelemetry-python/issues/4298
"""

from __future__ import annotations

import atexit
import logging
import threading
from _queue import Empty, SimpleQueue  # the C type: gevent patches only the module `queue`
from collections.abc import Callable
from time import monotonic

from opentelemetry import context
from opentelemetry.exporter.otlp.proto.http import trace_exporter
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor
from opentelemetry.sdk.trace.export import SpanExportResult

from ..waiting import after_fork, start_thread

_log = logging.getLogger("aibridge")
_QUEUE_LIMIT = 4096
_BATCH = 512
_DELAY = 1.0
_TIMEOUT = 5.0
_END = 5.0


class SpanQueue(SpanProcessor):
    """One per application and process: it begins anew after a fork. Takes a span without waiting, and
    drops it when too many wait."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._begin()
        after_fork(self, SpanQueue._begin)

    def _begin(self) -> None:
        self._lock, self._running = threading.Lock(), False
        self._queue: SimpleQueue[ReadableSpan | None] = SimpleQueue()
        self._join: Callable[[float], bool] = lambda timeout: True

    def on_end(self, span: ReadableSpan) -> None:
        sampled = span.context is not None and span.context.trace_flags.sampled
        if not sampled or self._queue.qsize() >= _QUEUE_LIMIT:
            return
        if not self._running:
            self._start()
        self._queue.put(span)

    def _start(self) -> None:
        with self._lock:
            if not self._running:
                self._join = start_thread(self._run)
                self._running = True
                atexit.register(self.shutdown)

    def shutdown(self) -> None:
        """Sends what waits, up to 5 seconds, and ends the thread."""
        atexit.unregister(self.shutdown)
        with self._lock:
            running, self._running = self._running, False
        if running:
            self._queue.put(None)
            self._join(_END)

    def _run(self) -> None:
        context.attach(context.set_value(context._SUPPRESS_INSTRUMENTATION_KEY, True))  # noqa: SLF001
        here = threading.get_ident()
        quiet = _Quiet(here)
        trace_exporter._logger.addFilter(quiet)  # noqa: SLF001
        try:
            exporter = trace_exporter.OTLPSpanExporter(self._url, timeout=_TIMEOUT)
            ended = away = False
            while not ended:
                batch, ended = self._collect()
                sent = not batch or exporter.export(batch) is SpanExportResult.SUCCESS
                if not sent and not away:
                    _log.warning("traces cannot be sent to %s and are dropped", self._url)
                away = not sent if batch else away
            exporter.shutdown()  # type: ignore[no-untyped-call]
        except Exception:  # noqa: BLE001 - told just below
            _log.exception("traces end here")
        finally:
            trace_exporter._logger.removeFilter(quiet)  # noqa: SLF001

    def _collect(self) -> tuple[list[ReadableSpan], bool]:
        """What comes within a second of the first; the flag tells that it was the last."""
        span = self._queue.get()
        batch, until = [], monotonic() + _DELAY
        try:
            while span is not None:
                batch.append(span)
                if len(batch) >= _BATCH:
                    return batch, False
                span = self._queue.get(timeout=max(0.0, until - monotonic()))
        except Empty:
            return batch, False
        return batch, True


class _Quiet(logging.Filter):
    """Keeps back what the exporter tells of each batch of ours; a host may have one of its own."""

    def __init__(self, thread: int) -> None:
        super().__init__()
        self._thread = thread

    def filter(self, record: logging.LogRecord) -> bool:
        return threading.get_ident() != self._thread  # records need not tell their thread

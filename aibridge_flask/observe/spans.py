"""Sends ended spans to the collector, in batches and from a real thread.

The SDK's batch processor starts its thread in every forked process, and under gevent as a greenlet, in which
encoding blocks the requests: https://github.com/open-telemetry/opentelemetry-python/issues/4298
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
_MAX_QUEUED = 4096
_BATCH_SIZE = 512
_BATCH_SECONDS = 1.0
_EXPORT_TIMEOUT = 5.0  # seconds
_CLOSE_TIMEOUT = 5.0  # seconds


class SpanQueue(SpanProcessor):
    """One per application and process; it resets itself after a fork. Drops spans if the queue is full."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._reset()
        after_fork(self, SpanQueue._reset)

    def _reset(self) -> None:
        self._lock, self._is_running = threading.Lock(), False
        self._queue: SimpleQueue[ReadableSpan | None] = SimpleQueue()
        self._join: Callable[[float], bool] = lambda timeout: True

    def on_end(self, span: ReadableSpan) -> None:
        sampled = span.context is not None and span.context.trace_flags.sampled
        if not sampled or self._queue.qsize() >= _MAX_QUEUED:
            return
        if not self._is_running:
            self._start()
        self._queue.put(span)

    def _start(self) -> None:
        with self._lock:
            if not self._is_running:
                self._join = start_thread(self._run)
                self._is_running = True
                atexit.register(self.shutdown)

    def shutdown(self) -> None:
        """Sends queued spans, for up to 5 seconds, and ends the thread."""
        atexit.unregister(self.shutdown)
        with self._lock:
            was_running, self._is_running = self._is_running, False
        if was_running:
            self._queue.put(None)
            self._join(_CLOSE_TIMEOUT)

    def _run(self) -> None:
        context.attach(context.set_value(context._SUPPRESS_INSTRUMENTATION_KEY, True))  # noqa: SLF001
        thread = threading.get_ident()
        log_filter = _ThreadFilter(thread)
        trace_exporter._logger.addFilter(log_filter)  # noqa: SLF001
        try:
            exporter = trace_exporter.OTLPSpanExporter(self._url, timeout=_EXPORT_TIMEOUT)
            ended = away = False
            while not ended:
                batch, ended = self._collect()
                sent = not batch or exporter.export(batch) is SpanExportResult.SUCCESS
                if not sent and not away:
                    _log.warning("traces cannot be sent to %s and are dropped", self._url)
                away = not sent if batch else away
            exporter.shutdown()  # type: ignore[no-untyped-call]
        except Exception:  # noqa: BLE001 - logged on the next line
            _log.exception("traces end here")
        finally:
            trace_exporter._logger.removeFilter(log_filter)  # noqa: SLF001

    def _collect(self) -> tuple[list[ReadableSpan], bool]:
        """Returns the spans that end within a second of the first; true at the end of the queue."""
        span = self._queue.get()
        batch, until = [], monotonic() + _BATCH_SECONDS
        try:
            while span is not None:
                batch.append(span)
                if len(batch) >= _BATCH_SIZE:
                    return batch, False
                span = self._queue.get(timeout=max(0.0, until - monotonic()))
        except Empty:
            return batch, False
        return batch, True


class _ThreadFilter(logging.Filter):
    """Drops the exporter's log records of our thread; a host may use the exporter too."""

    def __init__(self, thread: int) -> None:
        super().__init__()
        self._thread = thread

    def filter(self, record: logging.LogRecord) -> bool:
        return threading.get_ident() != self._thread  # log records may lack their thread

"""An HTTP/1.1 answer's bytes -> head and body pieces, over httptools (llhttp).

llhttp frames. Ours are: the limit on headers, answers without a body, 1xx, the end of file, and
that whatever follows the first complete answer is not part of it.
"""

from __future__ import annotations

from itertools import chain

import httptools

HEADER_LIMIT = 64 * 1024
_NO_BODY = frozenset((204, 304))


class MalformedResponse(Exception):
    """The upstream does not speak HTTP/1.1, or not for long."""


class ResponseParser:
    """`headers_done` and `complete` tell how far it is; `reusable` whether the connection may
    carry another request."""

    def __init__(self, method: str) -> None:
        self._bodiless = method == "HEAD"
        self._parser = httptools.HttpResponseParser(self)
        self._fed = 0  # since something whole came of it
        self._begin()
        self.headers_done = False
        self.complete = False
        self.reusable = False

    def _begin(self) -> None:
        self.status = 0
        self.reason = ""
        self.headers: list[tuple[str, str]] = []
        self._body: list[bytes] = []
        self._has_length = self._chunked = False

    def feed(self, data: bytes) -> None:
        """Raises MalformedAnswer."""
        if self.complete:
            self.reusable = False
            return
        self._fed += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            raise MalformedResponse("the upstream switched protocols") from None
        except (httptools.HttpParserError, MalformedResponse) as error:
            if not self.complete:
                raise MalformedResponse(type(error).__name__) from None
            self.reusable = False  # junk after the answer
        if not self.complete and self._fed > HEADER_LIMIT:
            raise MalformedResponse("the headers are too large")

    def eof(self) -> bool:
        """The connection has ended. True if that is the answer's proper end: one with neither
        a length nor chunks ends so."""
        self.reusable = False
        if self.headers_done and not (self._has_length or self._chunked):
            self.complete = True
        return self.complete

    def take(self) -> bytes:
        """The body bytes that have come since the last call."""
        pieces = self._body
        if not pieces:
            return b""
        taken = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        pieces.clear()
        return taken

    # What httptools calls; a second message after the first is not ours.

    def on_message_begin(self) -> None:
        self.reusable = False  # after an answer: something is left over
        if not self.complete:
            self._begin()

    def on_status(self, status: bytes) -> None:
        if not self.complete:
            self.reason += status.decode("latin-1")

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.headers_done:
            self._fed = 0  # a trailer, which is not kept
        else:
            self.headers.append((name.decode("latin-1"), value.decode("latin-1").strip(" \t")))

    def on_headers_complete(self) -> None:
        if self.headers_done:
            return
        status = self._parser.get_status_code()
        if status < 100:
            raise MalformedResponse("no status")
        if status < 200:
            return
        if self._fed > HEADER_LIMIT and sum(map(len, chain(*self.headers))) > HEADER_LIMIT:
            raise MalformedResponse("the headers are too large")
        self.status, self.headers_done, self._fed = status, True, 0
        self._frame()
        if self._bodiless or status in _NO_BODY:
            owes = status == 204 and (self._has_length or self._chunked)  # a body that may still come
            self.reusable = self._parser.should_keep_alive() and not owes
            self.complete = True

    def _frame(self) -> None:
        for name, value in self.headers:
            lower = name.lower()
            if lower == "content-length":
                self._has_length = True
            elif lower == "transfer-encoding":
                if value.lower() != "chunked":
                    raise MalformedResponse("unknown transfer coding")
                self._chunked = True

    def on_body(self, body: bytes) -> None:
        if self.complete:
            self.reusable = False
        elif self.headers_done:
            self._fed = 0
            self._body.append(body)

    def on_message_complete(self) -> None:
        if self.headers_done and not self.complete:  # else a 1xx, or what follows the answer
            self.complete = True
            self.reusable = self._parser.should_keep_alive()

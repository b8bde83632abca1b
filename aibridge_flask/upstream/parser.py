"""Parses the bytes of an HTTP/1.1 response into head and body, on top of httptools (llhttp).

llhttp does the framing. It lacks what is added here: a limit on headers, responses without a body, 1xx
responses, the end of the connection, and ignoring what follows the first complete response.
"""

from __future__ import annotations

from itertools import chain

import httptools

HEADER_LIMIT = 64 * 1024
_NO_BODY = frozenset((204, 304))


class MalformedResponse(Exception):
    """The upstream does not speak valid HTTP/1.1."""


class ResponseParser:
    """`headers_done`: the head has been read. `complete`: the body too. `reusable`: the connection may carry
    another request.
    """

    def __init__(self, method: str) -> None:
        self._is_head_request = method == "HEAD"
        self._parser = httptools.HttpResponseParser(self)
        self._unparsed_bytes = 0  # since the last complete element
        self._reset()
        self.headers_done = False
        self.complete = False
        self.reusable = False

    def _reset(self) -> None:
        self.status = 0
        self.reason = ""
        self.headers: list[tuple[str, str]] = []
        self._body: list[bytes] = []
        self._has_length = self._chunked = False

    def feed(self, data: bytes) -> None:
        """Parses more bytes. Raises MalformedResponse."""
        if self.complete:
            self.reusable = False
            return
        self._unparsed_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            raise MalformedResponse("the upstream switched protocols") from None
        except (httptools.HttpParserError, MalformedResponse) as error:
            if not self.complete:
                raise MalformedResponse(type(error).__name__) from None
            self.reusable = False  # junk after the response
        if not self.complete and self._unparsed_bytes > HEADER_LIMIT:
            raise MalformedResponse("the headers are too large")

    def eof(self) -> bool:
        """Handles the end of the connection; returns whether the response is complete.

        A response with neither a length nor chunks ends with the connection.
        """
        self.reusable = False
        if self.headers_done and not (self._has_length or self._chunked):
            self.complete = True
        return self.complete

    def take_body(self) -> bytes:
        """Returns the body bytes that were parsed since the last call."""
        pieces = self._body
        if not pieces:
            return b""
        body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        pieces.clear()
        return body

    # Callbacks of httptools. A second message after the first is ignored.

    def on_message_begin(self) -> None:
        self.reusable = False  # after a response, there is surplus data
        if not self.complete:
            self._reset()

    def on_status(self, status: bytes) -> None:
        if not self.complete:
            self.reason += status.decode("latin-1")

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.headers_done:
            self._unparsed_bytes = 0  # a trailer, which is dropped
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
        if self._unparsed_bytes > HEADER_LIMIT and sum(map(len, chain(*self.headers))) > HEADER_LIMIT:
            raise MalformedResponse("the headers are too large")
        self.status, self.headers_done, self._unparsed_bytes = status, True, 0
        self._read_framing()
        if self._is_head_request or status in _NO_BODY:
            body_may_follow = status == 204 and (self._has_length or self._chunked)
            self.reusable = self._parser.should_keep_alive() and not body_may_follow
            self.complete = True

    def _read_framing(self) -> None:
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
            self._unparsed_bytes = 0
            self._body.append(body)

    def on_message_complete(self) -> None:
        if self.headers_done and not self.complete:  # else it is a 1xx, or follows the response
            self.complete = True
            self.reusable = self._parser.should_keep_alive()

"""Parses the bytes of an HTTP/1.1 response into head and body, on top of httptools (llhttp).

llhttp does the framing. It lacks what is added here: a limit on headers, responses without a body, 1xx
responses, the end of the connection, and ignoring what follows the first complete response.
"""

from __future__ import annotations

import re
from itertools import chain

import httptools

HEADER_LIMIT = 64 * 1024
_NO_BODY = frozenset((204, 304))
_TAIL_BYTES = 256
_DATA_SIZE = re.compile(rb"0*[1-9a-fA-F]")


class MalformedResponse(Exception):
    """The upstream does not speak valid HTTP/1.1."""


class ResponseParser:
    """`headers_done`: the head has been read. `complete`: the body and its trailer too.

    `reusable`: the connection may carry another request. `body_ended`: the body has been read as far as its
    last chunk, so that it is whole whatever becomes of the trailer.
    """

    def __init__(self, method: str) -> None:
        self._is_head_request = method == "HEAD"
        self._parser = httptools.HttpResponseParser(self)
        self._unparsed_bytes = 0  # since the last complete element
        self._reset()
        self._at_chunk = False  # a chunk's size was parsed after the last data
        self._tail = b""
        self.headers_done = False
        self.body_ended = False
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
            if not self.complete and not self._at_chunk:
                raise MalformedResponse(type(error).__name__) from None
            self.complete, self.reusable = True, False  # a bad trailer, or junk after the response
        if self._chunked and not self.complete:
            self._tail = (self._tail + data[-_TAIL_BYTES:])[-_TAIL_BYTES:]
            self.body_ended = self.body_ended or (self._at_chunk and _ends_in_trailer(self._tail))
        if not self.complete and self._unparsed_bytes > HEADER_LIMIT:
            if not self.body_ended:
                raise MalformedResponse("the headers are too large")
            self.complete = True

    def eof(self) -> bool:
        """Handles the end of the connection; returns whether the response is complete.

        A response with neither a length nor chunks ends with the connection.
        """
        if self.headers_done and not (self._has_length or self._chunked):
            self.complete = True
        return self.give_up()

    def give_up(self) -> bool:
        """Expects no more bytes; returns whether the response is complete but for its trailer."""
        self.reusable = False
        self.complete = self.complete or self.body_ended
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
            self.body_ended = True  # a trailer, which is dropped
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

    def on_chunk_header(self) -> None:
        self._at_chunk = self.headers_done

    def on_body(self, body: bytes) -> None:
        self._at_chunk = False
        if self.complete:
            self.reusable = False
        elif self.headers_done:
            self._unparsed_bytes = 0
            self._body.append(body)

    def on_message_complete(self) -> None:
        if self.headers_done and not self.complete:  # else it is a 1xx, or follows the response
            self.complete = True
            self.reusable = self._parser.should_keep_alive()


def _ends_in_trailer(tail: bytes) -> bool:
    """Whether a trailer may begin: what was parsed has a chunk's size after the last data.

    Data follows the size of any chunk but the last one, so that nothing else is behind such a size here.

    >>> [_ends_in_trailer(tail) for tail in (b"x\\r\\n0\\r\\n", b"0\\r\\nX-Tr", b"0\\r\\nX: y\\r\\n")]
    [True, True, True]
    >>> _ends_in_trailer(b"x\\r\\n10;a=b\\r\\n")
    False
    """
    if not tail.endswith(b"\n"):
        return True
    _, is_visible, line = tail[:-1].rpartition(b"\n")
    return bool(is_visible) and not _DATA_SIZE.match(line)

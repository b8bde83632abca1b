"""Requests are read as gunicorn reads them, byte for byte, and refused with its words."""

from __future__ import annotations

from typing import Any

from gunicorn.config import Config
from gunicorn.http.errors import ParseException
from gunicorn.http.message import Request
from gunicorn.http.unreader import IterUnreader
from hypothesis import given, settings
from hypothesis import strategies as st

from aibridge_flask.serving.http import UsualRequest


def mostly(usual: list[str], odd: list[str]) -> st.SearchStrategy[str]:
    return st.integers(0, 9).flatmap(lambda number: st.sampled_from(usual if number else odd))


LINES = mostly(
    ["POST /v1/messages HTTP/1.1", "GET /v1/models?a=1&b=%2F?x HTTP/1.1", "HEAD / HTTP/1.1", "PUT /a;b:c HTTP/1.1"],
    ["get / HTTP/1.1", "CONNECT h:80 HTTP/1.1", "G@T / HTTP/1.1", " / HTTP/1.1", "X" * 21 + " / HTTP/1.1", "GET /a?b#c HTTP/1.1",
     "GET //a/b HTTP/1.1", "GET http://h/a HTTP/1.1", "GET h:80 HTTP/1.1", "OPTIONS * HTTP/1.1", "GET * HTTP/1.1", "GET /\xe4 HTTP/1.1",
     "GET /a b HTTP/1.1", "GET /[x HTTP/1.1", "GET  HTTP/1.1", "GET /" + "y" * 9000 + " HTTP/1.1", "GET / HTTP/1.0", "GET / HTTP/2.0",
     "GET / HTTP/1.1 ", "GET / http/1.1", "GET /"],
)  # fmt: skip
NAMES = mostly(
    ["Host", "Content-Type", "Expect", "X-Api-Key", "connection", "X-Forwarded-Proto", "X-Forwarded-Ssl", "X_Under",
     "SCRIPT_NAME", "Accept", "Content-Length", "Transfer-Encoding"],
    ["", "A B", "A ", "\xe4", "X" * 9000],
)  # fmt: skip
VALUES = mostly(
    ["a", "", " a ", "\ta\t", " 100-continue", "https", "on", "http", "3", "3", "chunked", "close", "keep-alive", "a:b", "\xe4"],
    ["-1", "+3", "gzip, chunked", "a\x00b", "a\x7fb", "a\r b", "a\nb", "a\r\n folded", "z" * 8180, "z" * 9000],
)  # fmt: skip
FIELDS = st.lists(st.builds("{}:{}".format, NAMES, VALUES), max_size=6)
FLAGS: list[dict[str, object]] = [
    {"limit_request_line": 0},
    {"limit_request_line": 20, "limit_request_field_size": 0},
    {"limit_request_field_size": 60},
    {"limit_request_fields": 3},
    {"header_map": "refuse"},
    {"header_map": "dangerous", "strip_header_spaces": True},
    {"permit_obsolete_folding": True, "casefold_http_method": True},
]
BODIES = st.sampled_from([b"", b"abc", b"abcdef", b"3\r\nabc\r\n0\r\n\r\n"])


def read(kind: Any, data: bytes, cut: int, peer: str, flags: dict[str, object]) -> tuple[object, ...]:
    """Returns what becomes of the bytes, which come in two pieces."""
    config = Config()
    for name, value in flags.items():
        config.set(name, value)
    source = IterUnreader([piece for piece in (data[:cut], data[cut:]) if piece])
    try:
        request = kind(config, source, (peer, 1))
        line = (request.method, request.uri, request.path, request.query, request.fragment, request.version)
        rest = (request.scheme, request._expected_100_continue, request.should_close())
        return (*line, *rest, request.headers, request.body.read(), source.read())
    except (ParseException, StopIteration, OSError) as error:
        return type(error), str(error)


@settings(max_examples=500, deadline=None)
@given(
    line=LINES,
    fields=FIELDS,
    many=st.sampled_from([0] * 8 + [98, 101]),
    end=mostly(["\r\n\r\n"], ["\n\n", "\r\n", ""]),
    start=mostly([""], ["\r\n"]),
    body=BODIES,
    cut=st.sampled_from([10**6] * 4 + [5, 30, 70, 130]),
    peer=st.sampled_from(["127.0.0.1", "203.0.113.9"]),
    flags=st.sampled_from([{}, *FLAGS]),
)
def test_a_request_is_read_as_gunicorn_reads_it(
    line: str,
    fields: list[str],
    many: int,
    end: str,
    start: str,
    body: bytes,
    cut: int,
    peer: str,
    flags: Any,
) -> None:
    head = start + "\r\n".join([line, *fields, *(f"X-{number}: v" for number in range(many))]) + end
    given = (head.encode("latin-1") + body, cut, peer, flags)
    assert read(UsualRequest, *given) == read(Request, *given)

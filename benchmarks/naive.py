"""The proxy that one writes first: Flask, `requests.request(stream=True)`, `iter_content`."""

from __future__ import annotations

import os

import requests
from flask import Flask, Response, request

app = Flask("naive")
_UPSTREAM = os.environ.get("NAIVE_UPSTREAM", "")
_EMPTY = b'{"text": "' + b"x" * 2000 + b'"}'
_ENDS_HERE = ("host", "connection", "content-length", "accept-encoding")
_NOT_BACK = ("connection", "transfer-encoding", "content-encoding")


@app.post("/empty")
def empty() -> Response:
    """What Flask and gunicorn cost by themselves: the yardstick of the machine."""
    request.get_data()
    return Response(_EMPTY, mimetype="application/json")


@app.post("/<path:path>")
def forward(path: str) -> Response:
    """Reads nothing, records nothing, knows no identity and holds no key."""
    sent = {name: value for name, value in request.headers if name.lower() not in _ENDS_HERE}
    answer = requests.request(
        "POST", f"{_UPSTREAM}/{path}", headers=sent, data=request.get_data(), stream=True, timeout=600
    )
    kept = [(name, value) for name, value in answer.headers.items() if name.lower() not in _NOT_BACK]
    return Response(answer.iter_content(chunk_size=None), answer.status_code, kept)

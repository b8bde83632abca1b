"""A naive proxy, the obvious first version: Flask, `requests.request(stream=True)`, `iter_content`."""

from __future__ import annotations

import os

import requests
from flask import Flask, Response, request

app = Flask("naive")
_UPSTREAM = os.environ.get("NAIVE_UPSTREAM", "")
_BODY = b'{"text": "' + b"x" * 2000 + b'"}'
_NOT_FORWARDED = ("host", "connection", "content-length", "accept-encoding")
_NOT_RETURNED = ("connection", "transfer-encoding", "content-encoding")


@app.post("/empty")
def empty() -> Response:
    """The cost of Flask and gunicorn alone: the reference for the machine."""
    request.get_data()
    return Response(_BODY, mimetype="application/json")


@app.post("/<path:path>")
def forward(path: str) -> Response:
    """Parses nothing, records nothing, checks no identity and adds no key."""
    headers = {name: value for name, value in request.headers if name.lower() not in _NOT_FORWARDED}
    response = requests.request(
        "POST", f"{_UPSTREAM}/{path}", headers=headers, data=request.get_data(), stream=True, timeout=600
    )
    response_headers = [
        (name, value) for name, value in response.headers.items() if name.lower() not in _NOT_RETURNED
    ]
    return Response(response.iter_content(chunk_size=None), response.status_code, response_headers)

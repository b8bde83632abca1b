"""Bedrock's side of the wire: frames of its event streams, and the signatures of requests."""

from __future__ import annotations

import base64
import json
import re
import struct
import zlib
from collections.abc import Iterable

import requests
from flask.testing import FlaskClient
from requests_aws4auth import AWS4Auth
from werkzeug.test import TestResponse

from tests.support.server import PREFIX
from tests.support.upstream import LAST_CHUNK, ReceivedRequest, chunk, head, http_response

REGION = "eu-central-1"
ACCESS_KEY, SECRET_KEY = "AKIDBRIDGE0123456789", "bridge/secret+0123456789abcdefghijklmnopq"
MODEL = "eu.anthropic.claude-sonnet-4-5-20250929-v1:0"
SMALL = "eu.anthropic.claude-haiku-4-5-20251001-v1:0"
MESSAGES = "/bedrock/v1/messages"
ASK = {"model": "claude-sonnet-4-5", "max_tokens": 64000, "messages": [{"role": "user", "content": "hi"}]}
WHOLE = (
    b'{"id":"msg_bdrk_1","type":"message","role":"assistant","model":"claude-sonnet-4-5-20250929",'
    b'"content":[{"type":"text","text":"Hi"}],"stop_reason":"end_turn","stop_sequence":null,'
    b'"usage":{"input_tokens":3,"output_tokens":7}}'
)
_AUTHORIZATION = re.compile(r"AWS4-HMAC-SHA256 Credential=(\S+), SignedHeaders=(\S+), Signature=[0-9a-f]{64}")


def settings(url: str, **aws: object) -> dict[str, object]:
    """A provider at the scripted upstream."""
    keys = {"access_key": {"value": ACCESS_KEY}, "secret_key": {"value": SECRET_KEY}}
    tree = {"region": REGION, "model": MODEL, "small_fast_model": SMALL, **keys, **aws}
    configured = {name: value for name, value in tree.items() if value}
    return {"type": "bedrock", "base_url": url, "aws": configured}


def frame(payload: bytes, **headers: str) -> bytes:
    """A message of AWS's event streams, with its two checksums."""
    fields = b""
    for name, value in headers.items():
        key, text = f":{name.replace('_', '-')}".encode(), value.encode()
        fields += struct.pack("!B", len(key)) + key + struct.pack("!BH", 7, len(text)) + text
    prelude = struct.pack("!II", len(fields) + len(payload) + 16, len(fields))
    message = prelude + struct.pack("!I", zlib.crc32(prelude)) + fields + payload
    return message + struct.pack("!I", zlib.crc32(message))


def event(data: bytes) -> bytes:
    """A frame with one of the model's events."""
    members = {"bytes": base64.b64encode(data).decode(), "p": "abcdefgh"}
    payload = json.dumps(members).encode()
    return frame(payload, event_type="chunk", content_type="application/json", message_type="event")


def exception(name: str, message: str) -> bytes:
    payload = json.dumps({"message": message}).encode()
    return frame(payload, exception_type=name, content_type="application/json", message_type="exception")


def frames(events: Iterable[bytes]) -> bytes:
    return b"".join(map(event, events))


def stream_head() -> bytes:
    kind = "application/vnd.amazon.eventstream"
    return head(200, "Transfer-Encoding: chunked", "x-amzn-RequestId: aws-1", kind=kind)


def event_stream(data: bytes, size: int = 0) -> list[bytes]:
    """A whole stream, in chunks of `size` bytes (0: one)."""
    size = size or len(data)
    pieces = [data[start : start + size] for start in range(0, len(data), size)]
    return [stream_head(), *map(chunk, pieces), LAST_CHUNK]


def refusal(status: int, name: str, message: str) -> bytes:
    """An error in the words of Bedrock's front end."""
    body = json.dumps({"message": message}).encode()
    error_type = f"x-amzn-ErrorType: {name}:http://internal.amazon.com/coral/com.amazon.bedrock/"
    return http_response(status, body, error_type, "x-amzn-RequestId: aws-1")


def signer(
    received: ReceivedRequest, secret_key: str = SECRET_KEY, token: str = "", region: str = REGION
) -> str:
    """Returns the access key that signed a request. Raises AssertionError if the signature is wrong.

    Another library than the bridge's computes it.
    """
    authorization = received.header("authorization")
    match = _AUTHORIZATION.fullmatch(authorization or "")
    assert match, authorization
    scope, names = match[1].split("/"), match[2].split(";")
    assert scope[2:] == [region, "bedrock", "aws4_request"]
    assert {"host", "content-type", "x-amz-date"} <= set(names)
    assert received.header("x-amz-security-token") == (token or None)
    headers = {name: str(received.header(name)) for name in names}
    url = f"http://{received.header('host')}{received.target}"
    request = requests.Request(received.method, url, headers=headers, data=received.body).prepare()
    AWS4Auth(scope[0], secret_key, region, "bedrock", include_hdrs=names)(request)
    assert request.headers["Authorization"].replace(",", ", ").replace(",  ", ", ") == authorization
    return scope[0]


def ask(client: FlaskClient, body: object, path: str = MESSAGES, **headers: str) -> TestResponse:
    data = body if isinstance(body, bytes) else json.dumps(body)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    response = client.post(PREFIX + path, data=data, headers=named)
    response.get_data()
    return response


def record(client: FlaskClient) -> dict[str, object]:
    newest: dict[str, object] = client.get(f"{PREFIX}/interceptions").get_json()["results"][0]
    return newest

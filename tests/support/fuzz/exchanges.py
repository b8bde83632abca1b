"""Requests and answers of the three APIs, changed from real ones."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

from aibridge_flask import formats
from aibridge_flask.protocols import Format
from tests.support.exchanges import OWN, load
from tests.support.fuzz.data import BYTES, ODD_VALUES, changed_json, json_bytes, spoiled_bytes

OFFERED = "bmcp_docs_add"
_NAME = re.compile(rb'("name": ?)"[a-z_]+"')


@dataclass(frozen=True)
class Api:
    """An API's format, with its own requests, events and blocking answers."""

    name: str
    format: Format
    requests: list[Any]
    events: list[tuple[bytes, ...]]
    bodies: list[Any]


def _api(name: str, route: str, wire_format: Format) -> Api:
    exchanges = [exchange for exchange in load(OWN) if exchange.route.endswith(route)]
    streams = [exchange.answer for exchange in exchanges if exchange.streaming and not exchange.is_message]
    bodies = [exchange.answer for exchange in exchanges if not exchange.streaming and not exchange.is_message]
    requests = [json.loads(exchange.request) for exchange in exchanges]
    return Api(
        name,
        wire_format,
        [*requests, *({**request, "stream": True} for request in requests)],
        [tuple(_split(call)) for stream in streams for call in (stream, _call_offered(stream))],
        [json.loads(call) for body in bodies for call in (body, _call_offered(body))],
    )


def _call_offered(answer: bytes) -> bytes:
    """The answer as if all the tools it calls were offered by the bridge."""
    return _NAME.sub(rb'\1"%b"' % OFFERED.encode(), answer)


def _split(stream: bytes) -> list[bytes]:
    return [event for event in re.split(rb"(?<=\n\n)|(?<=\r\n\r\n)", stream) if event]


MESSAGES = _api("messages", "/v1/messages", formats.MESSAGES)
CHAT = _api("chat", "/chat/completions", formats.CHAT)
RESPONSES = _api("responses", "/responses", formats.RESPONSES)
APIS = {api.name: api for api in (MESSAGES, CHAT, RESPONSES)}


@st.composite
def requests(draw: st.DrawFn, api: Api) -> bytes:
    return draw(json_bytes(api.requests))


@st.composite
def bodies(draw: st.DrawFn, api: Api) -> bytes:
    """A blocking answer."""
    return draw(json_bytes(api.bodies))


@st.composite
def streams(draw: st.DrawFn, api: Api) -> bytes:
    """An event stream: events are changed, lost, repeated and swapped, its lines end in any way."""
    events = list(draw(st.sampled_from(api.events)))
    for _ in range(draw(st.integers(0, 4))):
        _change_events(draw, events)
    stream = b"".join(events)
    if draw(st.integers(0, 2)) == 0:
        stream = stream.replace(b"\n", draw(st.sampled_from([b"\r\n", b"\r", b"\n\n", b"\n:\n"])))
    if draw(st.integers(0, 5)) == 0:
        stream = b"\xef\xbb\xbf" + stream
    return draw(spoiled_bytes(stream)) if draw(st.integers(0, 2)) == 0 else stream


def _change_events(draw: st.DrawFn, events: list[bytes]) -> None:
    position = draw(st.integers(0, len(events)))
    kind = draw(st.sampled_from(["json", "json", "lose", "repeat", "swap", "insert", "fields"]))
    if kind == "insert" or position == len(events):
        events.insert(position, draw(BYTES) + draw(st.sampled_from([b"", b"\n\n"])))
    elif kind == "json":
        events[position] = _with_other_json(draw, events[position])
    elif kind == "lose":
        del events[position]
    elif kind == "repeat":
        events.insert(position, events[position])
    elif kind == "swap":
        events.append(events.pop(position))
    else:
        field = draw(
            st.sampled_from(
                [b"id: 7\n", b"retry: x\n", b": comment\n", b"\n", b"data\n", b"z" * 9000 + b"\n"]
            )
        )
        events[position] = field + events[position]


def _with_other_json(draw: st.DrawFn, event: bytes) -> bytes:
    head, found, data = event.partition(b"data: ")
    try:
        tree = json.loads(data) if found else None
    except ValueError:
        tree = None
    new = draw(changed_json([tree])) if tree is not None else draw(st.sampled_from(ODD_VALUES))
    return head + b"data: " + json.dumps(new).encode() + b"\n\n"

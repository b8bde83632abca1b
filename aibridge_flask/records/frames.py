"""Frames of a record log: events with a length, a checksum and the time of the append.

A reader that meets damage looks for the next sound frame, so a damaged frame costs itself only.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any
from zlib import crc32

import msgspec
from msgspec import Struct

from .events import (
    EPOCH,
    CredentialUsed,
    Ended,
    Event,
    GatewayTokenUsed,
    ModelThought,
    Prompt,
    PromptAnswered,
    Started,
    StoredObject,
    TokenUsage,
    ToolUsage,
)
from .rows import clean_text

# The names of events in logs and in the spool of earlier versions. They outlive renamed classes.
EVENT_TYPES: dict[str, type[Event]] = {
    "Started": Started,
    "Prompt": Prompt,
    "Answered": PromptAnswered,
    "KeyUsed": CredentialUsed,
    "TokenUse": TokenUsage,
    "ToolUse": ToolUsage,
    "ModelThought": ModelThought,
    "Ended": Ended,
    "TokenUsed": GatewayTokenUsed,
    "StoredObject": StoredObject,
}
_NAMES = {event_type: name for name, event_type in EVENT_TYPES.items()}
_MAGIC = b"\xa1\xb2BR"
_VERSION = 1
_HEADER = struct.Struct("<4sBxHIId")  # magic, version, count of events, payload's length, checksum, time
_MAX_PAYLOAD = 256 << 20
HEADER_BYTES = _HEADER.size
_encoder = msgspec.msgpack.Encoder(enc_hook=dict)


class Frame(Struct, frozen=True):
    """A frame at the offsets [start, end) of a log. `time` is when it was appended, in seconds since 1970.

    `unknown` are events that this version cannot read: another version has written them.
    """

    start: int
    end: int
    time: float
    events: tuple[Event, ...]
    unknown: tuple[Any, ...] = ()


def encode(events: Sequence[Event], time: float) -> bytes:
    """Returns a frame as bytes."""
    named = [(_NAMES[type(event)], event) for event in events]
    try:
        payload = _encoder.encode(named)
    except UnicodeError:  # lone surrogates
        payload = _encoder.encode(
            [(name, _clean(msgspec.to_builtins(event, **_KEEP))) for name, event in named]
        )
    count = min(len(events), 0xFFFF)
    header = _HEADER.pack(_MAGIC, _VERSION, count, len(payload), 0, time)
    return header[:12] + _checksum(header, payload) + header[16:] + payload


def blank(length: int, time: float) -> bytes:
    """Returns a frame of this length, at least 100, that changes nothing when it is applied."""
    for first in range(4):  # a text's header grows with it, so that one text alone has not every length
        frame = _padded(first, 0, time)
        for padding in range(max(0, length - len(frame) - 5), length - len(frame) + 1):
            if len(frame := _padded(first, padding, time)) == length:
                return frame
    raise ValueError(length)


def _padded(first: int, second: int, time: float) -> bytes:
    """Returns a frame that says of tokens which do not exist that they were used."""
    return encode([GatewayTokenUsed(" " * size, EPOCH) for size in (first, second)], time)


def decode(data: bytes, start: int, is_end: bool) -> tuple[list[Frame], int, int]:
    """Decodes the frames of `data`, whose first byte has the offset `start`.

    Returns the frames, the offset up to which `data` was consumed, and the number of damaged places. With
    `is_end` no data follows; otherwise an incomplete frame at the end is not consumed.
    """
    frames: list[Frame] = []
    position, damaged = 0, 0
    while position < len(data):
        frame = _frame_at(data, position, start)
        if frame is not None:
            frames.append(frame)
            position = frame.end - start
            continue
        is_incomplete = _is_incomplete(data, position)
        if is_incomplete and not is_end:
            break
        position = _next_candidate(data, position + 1, start, is_end)
        # an incomplete frame at the very end was cut by a kill during the append, and nobody relied on it
        damaged += not (is_incomplete and position == len(data))
    return frames, start + position, damaged


def missing_bytes(data: bytes) -> int:
    """Returns how many bytes the frame at the beginning of `data` lacks; 0 if it is complete or damaged."""
    if not _is_incomplete(data, 0):
        return 0
    if len(data) < HEADER_BYTES:
        return HEADER_BYTES - len(data)
    return HEADER_BYTES + int(_HEADER.unpack_from(data)[3]) - len(data)


def read_header(header: bytes) -> tuple[int, int, float]:
    """Returns a frame's length, its number of events and its time; zeros if it is damaged."""
    if len(header) < HEADER_BYTES:
        return 0, 0, 0.0
    magic, version, count, length, _, time = _HEADER.unpack(header)
    is_sound = magic == _MAGIC and version == _VERSION and length <= _MAX_PAYLOAD
    return (HEADER_BYTES + length, count, time) if is_sound else (0, 0, 0.0)


def decode_event(name: str, raw: Any) -> Event:
    """Builds an event from its name in logs and its members as plain values.

    Raises MsgspecError, KeyError.
    """
    event: Event = msgspec.convert(raw, EVENT_TYPES[name])
    return event


def _frame_at(data: bytes, position: int, start: int) -> Frame | None:
    if len(data) - position < HEADER_BYTES:
        return None
    header = data[position : position + HEADER_BYTES]
    magic, version, _, length, _, time = _HEADER.unpack(header)
    end = position + HEADER_BYTES + length
    if magic != _MAGIC or version != _VERSION or end > len(data):
        return None
    payload = data[position + HEADER_BYTES : end]
    if _checksum(header, payload) != header[12:16]:
        return None
    events, unknown = _events_of(payload)
    return Frame(start + position, start + end, time, events, unknown)


def _checksum(header: bytes, payload: bytes) -> bytes:
    """Returns the checksum of a frame, whose own four bytes in the header do not count."""
    return crc32(payload, crc32(header[:12] + header[16:])).to_bytes(4, "little")


def _events_of(payload: bytes) -> tuple[tuple[Event, ...], tuple[Any, ...]]:
    events: list[Event] = []
    unknown: list[Any] = []
    for named in msgspec.msgpack.decode(payload):
        try:
            events.append(decode_event(*named))
        except (msgspec.MsgspecError, KeyError, TypeError):
            unknown.append(named)
    return tuple(events), tuple(unknown)


def _is_incomplete(data: bytes, position: int) -> bool:
    """Whether a sound header begins here whose frame continues after `data`."""
    if len(data) - position < HEADER_BYTES:
        return data[position : position + len(_MAGIC)] == _MAGIC[: len(data) - position]
    magic, version, _, length, _, _ = _HEADER.unpack_from(data, position)
    is_sound = magic == _MAGIC and version == _VERSION and length <= _MAX_PAYLOAD
    return bool(is_sound and position + HEADER_BYTES + length > len(data))


def _next_candidate(data: bytes, position: int, start: int, is_end: bool) -> int:
    """Returns the position of the next frame that is sound or may continue after `data`, or the end."""
    while (found := data.find(_MAGIC, position)) >= 0:
        if _frame_at(data, found, start) is not None or (not is_end and _is_incomplete(data, found)):
            return found
        position = found + 1
    tails = range(max(position, len(data) - len(_MAGIC) + 1), len(data))
    return next((tail for tail in tails if not is_end and _is_incomplete(data, tail)), len(data))


_KEEP: dict[str, Any] = {"enc_hook": dict, "builtin_types": ()}


def _clean(value: Any) -> Any:
    if isinstance(value, dict):
        return {clean_text(key): _clean(member) for key, member in value.items()}
    if isinstance(value, list | tuple):
        return [_clean(member) for member in value]
    return clean_text(value) if isinstance(value, str) else value

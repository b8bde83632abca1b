"""Reads a few fields of a large JSON body cheaply, and sets one without changing the bytes of the others.

msgspec finds the wanted fields without building the rest. It refuses some things that clients send
(lone surrogates, fields of an unexpected type). Such a body is read with `json`, and is forwarded unchanged.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from itertools import islice
from typing import Any, TypeVar

import msgspec

from ..errors import InvalidBody
from ..large_bytes import join
from ..model import EMPTY, identifier
from . import large_json, lenient
from .long_texts import LongTexts

T = TypeVar("T", bound=msgspec.Struct)
_DECODE_ERRORS = (msgspec.MsgspecError, UnicodeError, RecursionError)
_MAX_VALUES, _SLICE_BYTES = 1_000_000, 1 << 20
_MAX_COUNT = (1 << 53) - 1
_MAX_COUNT_NAME_LENGTH, _MAX_COUNTS = 100, 50
_WHITESPACE = b" \t\r\n"
_NAME = re.compile(rb'[ \t\r\n]*[{,][ \t\r\n]*("[^"\\]*(?:\\.[^"\\]*)*")[ \t\r\n]*:[ \t\r\n]*')
_END = re.compile(rb"[ \t\r\n]*}[ \t\r\n]*")
OBJECT = (dict, Mapping)
"""The types of a JSON object. Asking an abstract class takes ten times as long: `dict` comes first."""


def decode_fields(body: bytes, struct_type: type[T]) -> T:
    """Decodes the fields of `struct_type` from a JSON object.

    `struct_type` is a Struct whose fields are Raw and have defaults.

    Raises InvalidBody if `body` is not UTF-8, not JSON or not an object. The message gives the position.
    """
    if not body or body.isspace():
        raise InvalidBody("the request body is empty: a JSON object is expected")
    lenient.check_utf8(body)
    if is_dense(body):
        return _decode_sparse_fields(body, struct_type)
    try:
        return msgspec.json.decode(body, type=struct_type)
    except _DECODE_ERRORS:
        members = lenient.parse_object(str(body, "utf-8"))
        return struct_type(
            **{name: members[name] for name in struct_type.__struct_fields__ if name in members}
        )


def join_texts(texts: Iterable[str]) -> str:
    """Joins the pieces of a text. Two may share a character: each has half of a surrogate pair.

    >>> join_texts(["a\\ud83d", "\\ude00z"]) == "a\\U0001f600z", join_texts(["\\ud83d", "z"]) == "\\ud83dz"
    (True, True)
    """
    text = "".join(texts)
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")
    return text


def is_dense(data: bytes) -> bool:
    """Whether the JSON may hold more values than any model's context has tokens.

    Decoding it would take gigabytes of memory, and seconds during which no other request is served. Such a
    body is validated, but not decoded.
    """
    if len(data) <= _MAX_VALUES:
        return False
    values = 0
    for start in range(0, len(data), _SLICE_BYTES):  # in slices, between which other threads run
        values += sum(data.count(mark, start, start + _SLICE_BYTES) for mark in (b",", b"[", b"{"))
        if values > _MAX_VALUES:
            return True
    return False


def _decode_sparse_fields(body: bytes, struct_type: type[T]) -> T:
    """Like `decode_fields`, without the arrays."""
    try:
        sparse = msgspec.json.decode(body, type=_sparse_type(struct_type))
    except _DECODE_ERRORS as error:
        raise InvalidBody(f"the request body is not JSON: {error}") from None
    return struct_type(**{name: getattr(sparse, name) for name in sparse.__struct_fields__})


@lru_cache
def _sparse_type(struct_type: type[msgspec.Struct]) -> type[msgspec.Struct]:
    raw_fields = [field for field in msgspec.structs.fields(struct_type) if field.type is msgspec.Raw]
    return msgspec.defstruct(
        struct_type.__name__, [(field.name, msgspec.Raw, field.default) for field in raw_fields]
    )


def decode_raw(raw: Any) -> Any:
    """Decodes a field that `decode_fields` returned."""
    return loads(to_bytes(raw)) if isinstance(raw, msgspec.Raw) else raw


def to_bytes(raw: msgspec.Raw) -> bytes:
    return join((memoryview(raw),))


def to_identifier(raw: Any) -> str:
    """Returns a field that names something, such as the model; "" if it is not a string."""
    return identifier(to_text(raw))


def to_text(raw: Any) -> str:
    """Returns a field that should be a string; "" if it is anything else."""
    value = decode_raw(raw)
    return value if isinstance(value, str) else ""


def to_count(*raws: Any) -> int:
    """Returns the first of the fields that is a count above 0; 0 if none is."""
    values = map(decode_raw, raws)
    return next((value for value in values if type(value) is int and 0 < value < _MAX_COUNT), 0)


def loads(data: bytes) -> Any:
    """Decodes JSON from an upstream or a client, as tolerantly as possible.

    Returns None if `data` is not JSON or is too dense (see `is_dense`). Texts of many megabytes are cut off.
    """
    texts = LongTexts()
    short = texts.shorten(data)
    if is_dense(short):
        return None
    try:
        value = _loads(short)
        return texts.restore_all(value) if texts else value
    except (*_DECODE_ERRORS, ValueError):
        return None


def _loads(data: bytes) -> Any:
    try:
        return large_json.loads(data)
    except _DECODE_ERRORS:
        return json.loads(data)


def dumps(value: Any) -> bytes:
    """Encodes compact JSON. Lone surrogates are escaped."""
    try:
        return msgspec.json.encode(value)
    except UnicodeError:
        return json.dumps(value, separators=(",", ":")).encode()


def set_field(body: bytes, name: str, new: bytes) -> bytes:
    """Returns `body`, a JSON object, with the member `name` set to the JSON text `new`.

    A missing member is appended, and no other byte changes. An existing member is replaced, and the white
    space between members is dropped. A body that msgspec cannot split, or a dense one, is returned unchanged.
    """
    if is_dense(body):
        return body
    try:
        short = LongTexts().shorten(body)
        members = msgspec.json.decode(short, type=dict[str, msgspec.Raw])
        if name in members:
            whole = members if short is body else msgspec.json.decode(body, type=dict[str, msgspec.Raw])
            return msgspec.json.encode({**whole, name: msgspec.Raw(new)})
    except _DECODE_ERRORS:
        return body
    end = body.rindex(b"}")
    while body[end - 1] in _WHITESPACE:
        end -= 1
    comma = b"" if body[end - 1 : end] == b"{" else b","
    return join((memoryview(body)[:end], comma, dumps(name), b":", new, b"}"))  # a large body is copied once


def split_members(body: bytes) -> dict[str, bytes]:
    """Returns the members of a JSON object by name; each value is its unchanged bytes. Raises InvalidBody."""
    if not body or body.isspace():
        raise InvalidBody("the request body is empty: a JSON object is expected")
    lenient.check_utf8(body)
    texts = LongTexts()
    short = texts.shorten(body)
    if is_dense(short):
        raise InvalidBody("the request body holds more values than a model can read")
    try:
        members = msgspec.json.decode(short, type=dict[str, msgspec.Raw])
        return {texts.restore(name): texts.expand(to_bytes(raw)) for name, raw in members.items()}
    except _DECODE_ERRORS:
        text = str(body, "utf-8")
        lenient.parse_object(text)
        return dict(lenient.iter_members(text))


def object_members(raw: bytes) -> dict[str, bytes]:
    """Like `split_members`, but returns {} if `raw` is not a JSON object."""
    try:
        return split_members(raw)
    except InvalidBody:
        return {}


def index_of(members: Mapping[str, bytes]) -> int:
    """Returns the member `index`; 0 if it is not a count."""
    return get_count({"index": loads(members.get("index", b"null"))}, "index")


def has_duplicate_names(body: bytes, members: Mapping[str, bytes]) -> bool:
    """Whether the top level of an object holds a name more than once.

    `members` is what `split_members` returned for `body`.
    """
    place = 0
    for name, raw in members.items():
        found = _NAME.match(body, place)
        if found is None or json.loads(found[1]) != name or not body.startswith(raw, found.end()):
            return True
        place = found.end() + len(raw)
    return _END.fullmatch(body, place) is None


def all_members(raw: bytes) -> Iterable[tuple[str, bytes]]:
    """Like `object_members`, but returns each member of a name that the object holds more than once."""
    own = object_members(raw)
    return lenient.iter_members(str(raw, "utf-8")) if own and has_duplicate_names(raw, own) else own.items()


def array_elements(raw: bytes) -> list[bytes]:
    """Returns the elements of a JSON array, each as its unchanged bytes; [] if `raw` is not an array.

    >>> array_elements(b'[ 1.0, {"a" : 2} ]'), array_elements(b"{}")
    ([b'1.0', b'{"a" : 2}'], [])
    """
    try:
        return [bytes(element) for element in msgspec.json.decode(raw, type=list[msgspec.Raw])]
    except _DECODE_ERRORS:
        return list(lenient.iter_elements(str(raw, "utf-8"))) if isinstance(loads(raw), list) else []


def join_members(members: Mapping[str, bytes]) -> bytes:
    """Returns the JSON object with these members. The inverse of `split_members`."""
    parts = [part for name, raw in members.items() for part in (b",", dumps(name), b":", raw)]
    return join((b"{", *parts[1:], b"}"))  # a large member is copied once


def get_object(value: Any, key: str) -> Mapping[str, Any]:
    """Returns a member that should be an object; an empty one if it is anything else."""
    member = value.get(key) if isinstance(value, OBJECT) else None
    return member if isinstance(member, OBJECT) else EMPTY


def get_array(value: Any, key: str) -> list[Any]:
    """Returns a member that should be an array; an empty one if it is anything else."""
    member = value.get(key) if isinstance(value, OBJECT) else None
    return member if isinstance(member, list) else []


def get_string(value: Any, key: str) -> str:
    """Returns a member that should be a string; an empty one if it is anything else."""
    member = value.get(key) if isinstance(value, OBJECT) else None
    return member if isinstance(member, str) else ""


def get_identifier(value: Any, key: str) -> str:
    """Returns a member that names something, such as the model; "" if it is not a string."""
    return identifier(get_string(value, key))


def get_count(value: Any, key: str) -> int:
    """Returns a member that should be a count; 0 if it is anything else.

    A number that does not fit into a database column is clipped.
    """
    member = value.get(key) if isinstance(value, OBJECT) else None
    if not isinstance(member, int) or isinstance(member, bool):
        return 0
    return max(-_MAX_COUNT, min(member, _MAX_COUNT))


def positive_counts(value: Mapping[str, Any]) -> dict[str, int]:
    """Returns an object's counts above 0, by name without the suffix `_tokens`."""
    names = [
        key
        for key in value
        if get_count(value, key) > 0 and len(key) <= _MAX_COUNT_NAME_LENGTH and key.isprintable()
    ]
    return {name.removesuffix("_tokens"): get_count(value, name) for name in names}


def limit_counts(counts: Mapping[str, int]) -> dict[str, int]:
    """Returns as many counts as a record may hold: a response can name any number of them."""
    return dict(islice(counts.items(), _MAX_COUNTS))

"""Reads a few fields of a large JSON body cheaply, and sets one without changing the bytes of the others.

msgspec finds the wanted fields without building the rest. It refuses some things that clients send
(lone surrogates, fields of an unexpected type). Such a body is read with `json`, and is forwarded unchanged.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from itertools import islice
from typing import Any, TypeVar

import msgspec

from ..errors import InvalidBody
from ..model import EMPTY

T = TypeVar("T", bound=msgspec.Struct)
_DECODE_ERRORS = (msgspec.MsgspecError, UnicodeError, RecursionError)
_MAX_VALUES = 1_000_000
_MAX_COUNT = (1 << 53) - 1
_MAX_COUNT_NAME_LENGTH, _MAX_COUNTS = 100, 50
_WHITESPACE = b" \t\r\n"


def decode_fields(body: bytes, struct_type: type[T]) -> T:
    """Decodes the fields of `struct_type` from a JSON object.

    `struct_type` is a Struct whose fields are Raw and have defaults.

    Raises InvalidBody if `body` is not UTF-8, not JSON or not an object. The message gives the position.
    """
    if not body.strip(_WHITESPACE):
        raise InvalidBody("the request body is empty: a JSON object is expected")
    text = _decode_utf8(body)
    if is_dense(body):
        return _decode_sparse_fields(body, struct_type)
    try:
        return msgspec.json.decode(body, type=struct_type)
    except _DECODE_ERRORS:
        members = _parse_object(text)
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
    return len(data) > _MAX_VALUES and sum(map(data.count, (b",", b"[", b"{"))) > _MAX_VALUES


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
    return loads(bytes(raw)) if isinstance(raw, msgspec.Raw) else raw


def to_text(raw: Any) -> str:
    """Returns a field that should be a string; "" if it is anything else."""
    value = decode_raw(raw)
    return value if isinstance(value, str) else ""


def loads(data: bytes) -> Any:
    """Decodes JSON from an upstream or a client, as tolerantly as possible.

    Returns None if `data` is not JSON or is too dense (see `is_dense`).
    """
    if is_dense(data):
        return None
    try:
        return msgspec.json.decode(data)
    except _DECODE_ERRORS:
        try:
            return json.loads(data)
        except (ValueError, RecursionError):
            return None


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
        members = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    except _DECODE_ERRORS:
        return body
    if name in members:
        return msgspec.json.encode({**members, name: msgspec.Raw(new)})
    unclosed = body.rstrip(_WHITESPACE)[:-1].rstrip(_WHITESPACE)
    comma = b"" if unclosed.endswith(b"{") else b","
    return unclosed + comma + dumps(name) + b":" + new + b"}"


def split_members(body: bytes) -> dict[str, bytes]:
    """Returns the members of a JSON object by name; each value is its unchanged bytes. Raises InvalidBody."""
    if not body.strip(_WHITESPACE):
        raise InvalidBody("the request body is empty: a JSON object is expected")
    if is_dense(body):
        raise InvalidBody("the request body holds more values than a model can read")
    text = _decode_utf8(body)
    try:
        members = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
        return {name: bytes(raw) for name, raw in members.items()}
    except _DECODE_ERRORS:
        _parse_object(text)
        return dict(_iter_members(text))


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
    compact_size = sum(len(dumps(name)) + len(raw) + 2 for name, raw in members.items()) + 1
    return compact_size < len(body) and sum(1 for _ in _iter_members(str(body, "utf-8"))) > len(members)


def all_members(raw: bytes) -> Iterable[tuple[str, bytes]]:
    """Like `object_members`, but returns each member of a name that the object holds more than once."""
    own = object_members(raw)
    return _iter_members(str(raw, "utf-8")) if own and has_duplicate_names(raw, own) else own.items()


def _iter_members(text: str) -> Iterator[tuple[str, bytes]]:
    """Yields name and unchanged value of each member of an object that msgspec may have refused."""
    decode, position = json.JSONDecoder().raw_decode, _skip_separators(text, text.index("{") + 1)
    while text[position] != "}":
        name, position = decode(text, position)
        start = _skip_separators(text, position)
        _, position = decode(text, start)
        yield name, text[start:position].encode()
        position = _skip_separators(text, position)


def _iter_elements(text: str) -> Iterator[bytes]:
    """Like `_iter_members`, for the elements of an array."""
    decode, position = json.JSONDecoder().raw_decode, _skip_separators(text, text.index("[") + 1)
    while text[position] != "]":
        start = position
        _, position = decode(text, start)
        yield text[start:position].encode()
        position = _skip_separators(text, position)


def _skip_separators(text: str, position: int) -> int:
    """Returns the position of the next value."""
    while text[position] in " \t\r\n,:":
        position += 1
    return position


def array_elements(raw: bytes) -> list[bytes]:
    """Returns the elements of a JSON array, each as its unchanged bytes; [] if `raw` is not an array.

    >>> array_elements(b'[ 1.0, {"a" : 2} ]'), array_elements(b"{}")
    ([b'1.0', b'{"a" : 2}'], [])
    """
    try:
        return [bytes(element) for element in msgspec.json.decode(raw, type=list[msgspec.Raw])]
    except _DECODE_ERRORS:
        return list(_iter_elements(str(raw, "utf-8"))) if isinstance(loads(raw), list) else []


def join_members(members: Mapping[str, bytes]) -> bytes:
    """Returns the JSON object with these members. The inverse of `split_members`."""
    return b"{" + b",".join(dumps(name) + b":" + raw for name, raw in members.items()) + b"}"


def get_object(value: Any, key: str) -> Mapping[str, Any]:
    """Returns a member that should be an object; an empty one if it is anything else."""
    member = value.get(key) if isinstance(value, Mapping) else None
    return member if isinstance(member, Mapping) else EMPTY


def get_array(value: Any, key: str) -> list[Any]:
    """Returns a member that should be an array; an empty one if it is anything else."""
    member = value.get(key) if isinstance(value, Mapping) else None
    return member if isinstance(member, list) else []


def get_string(value: Any, key: str) -> str:
    """Returns a member that should be a string; an empty one if it is anything else."""
    member = value.get(key) if isinstance(value, Mapping) else None
    return member if isinstance(member, str) else ""


def get_count(value: Any, key: str) -> int:
    """Returns a member that should be a count; 0 if it is anything else.

    A number that does not fit into a database column is clipped.
    """
    member = value.get(key) if isinstance(value, Mapping) else None
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


def _decode_utf8(body: bytes) -> str:
    try:
        return str(body, "utf-8")
    except UnicodeDecodeError as error:
        raise InvalidBody(f"the request body is not UTF-8: byte {error.start}") from None


def _parse_object(text: str) -> dict[str, Any]:
    """Decodes a JSON object with `json`. Raises InvalidBody."""
    try:
        value = json.loads(text, parse_constant=_reject_constant)
    except json.JSONDecodeError as error:
        position = f"line {error.lineno}, column {error.colno}"
        raise InvalidBody(f"the request body is not JSON: {error.msg} at {position}") from None
    except RecursionError:
        raise InvalidBody("the request body is nested too deeply") from None
    except ValueError as error:
        raise InvalidBody(f"the request body is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise InvalidBody("the request body is not a JSON object")
    return value


def _reject_constant(constant: str) -> Any:
    """`json` accepts NaN and Infinity, which are not JSON."""
    raise ValueError(f"{constant} is not a JSON value")

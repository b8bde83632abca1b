"""Read a few fields of a large JSON body cheaply; set one without touching the others' bytes.

msgspec finds the wanted fields without building the rest. It refuses what some clients send
(lone surrogates) and types it was not told of: then `json` reads, and the bytes go on as they are.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import lru_cache
from itertools import islice
from typing import Any, TypeVar

import msgspec

from ..errors import InvalidBody
from ..model import EMPTY

T = TypeVar("T", bound=msgspec.Struct)
_REFUSALS = (msgspec.MsgspecError, UnicodeError, RecursionError)
_DENSE = 1_000_000
_MOST = (1 << 53) - 1
_LONGEST, _KINDS = 100, 50  # of the names of counts
_SPACE = b" \t\r\n"


def decode_fields(body: bytes, shape: type[T]) -> T:
    """The fields of `shape` (a Struct of Raw fields, each with a default) in a JSON object.

    Raises BadBody where `body` is not UTF-8, no JSON, or no object; it says where it broke.
    """
    if not body.strip(_SPACE):
        raise InvalidBody("the request body is empty: a JSON object is expected")
    text = _utf8(body)
    if is_dense(body):
        return _sparse_fields(body, shape)
    try:
        return msgspec.json.decode(body, type=shape)
    except _REFUSALS:
        found = _strict_object(text)
        return shape(**{name: found[name] for name in shape.__struct_fields__ if name in found})


def is_dense(data: bytes) -> bool:
    """Plain values of it would be more than any model's context has tokens: gigabytes, and seconds in
    which nobody else is served. Such is not read, only checked."""
    return len(data) > _DENSE and sum(map(data.count, (b",", b"[", b"{"))) > _DENSE


def _sparse_fields(body: bytes, shape: type[T]) -> T:
    """As `fields`, without the arrays."""
    try:
        found = msgspec.json.decode(body, type=_sparse(shape))
    except _REFUSALS as error:
        raise InvalidBody(f"the request body is not JSON: {error}") from None
    return shape(**{name: getattr(found, name) for name in found.__struct_fields__})


@lru_cache
def _sparse(shape: type[msgspec.Struct]) -> type[msgspec.Struct]:
    plain = [field for field in msgspec.structs.fields(shape) if field.type is msgspec.Raw]
    return msgspec.defstruct(shape.__name__, [(field.name, msgspec.Raw, field.default) for field in plain])


def value(raw: Any) -> Any:
    """What a field of `fields` holds, as plain values."""
    return loads(bytes(raw)) if isinstance(raw, msgspec.Raw) else raw


def to_text(raw: Any) -> str:
    """A field that should be a string; anything else is none."""
    found = value(raw)
    return found if isinstance(found, str) else ""


def loads(data: bytes) -> Any:
    """JSON of an upstream or a client, read as tolerantly as can be; None where it is no JSON, or
    too dense."""
    if is_dense(data):
        return None
    try:
        return msgspec.json.decode(data)
    except _REFUSALS:
        try:
            return json.loads(data)
        except (ValueError, RecursionError):
            return None


def dumps(found: Any) -> bytes:
    """Compact JSON; lone surrogates survive as escapes."""
    try:
        return msgspec.json.encode(found)
    except UnicodeError:
        return json.dumps(found, separators=(",", ":")).encode()


def set_field(body: bytes, name: str, new: bytes) -> bytes:
    """`body`, a JSON object, with the member `name` set to the JSON text `new`.

    A member that was missing is put at the end and nothing else moves; one that is there is
    replaced, and white space between members goes. A body that msgspec cannot take apart, or a
    dense one, is given back as it was.
    """
    if is_dense(body):
        return body
    try:
        members = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    except _REFUSALS:
        return body
    if name in members:
        return msgspec.json.encode({**members, name: msgspec.Raw(new)})
    inside = body.rstrip(_SPACE)[:-1].rstrip(_SPACE)
    comma = b"" if inside.endswith(b"{") else b","
    return inside + comma + dumps(name) + b":" + new + b"}"


def members(body: bytes) -> dict[str, bytes]:
    """The members of a JSON object, each value's bytes as they stand. Raises BadBody."""
    if not body.strip(_SPACE):
        raise InvalidBody("the request body is empty: a JSON object is expected")
    if is_dense(body):
        raise InvalidBody("the request body holds more values than a model can read")
    text = _utf8(body)
    try:
        found = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
        return {name: bytes(raw) for name, raw in found.items()}
    except _REFUSALS:
        _strict_object(text)
        return dict(_pairs(text))


def object_members(raw: bytes) -> dict[str, bytes]:
    """As `members`; none of what is no object."""
    try:
        return members(raw)
    except InvalidBody:
        return {}


def index_of(found: Mapping[str, bytes]) -> int:
    """The member `index` of such members, a count."""
    return get_count({"index": loads(found.get("index", b"null"))}, "index")


def has_duplicate_names(body: bytes, found: Mapping[str, bytes]) -> bool:
    """Whether an object whose `members` are `found` holds a name more than once at its top."""
    compact = sum(len(dumps(name)) + len(raw) + 2 for name, raw in found.items()) + 1
    return compact < len(body) and sum(1 for _ in _pairs(str(body, "utf-8"))) > len(found)


def _pairs(text: str) -> Iterator[tuple[str, bytes]]:
    """The members of an object that is JSON, but perhaps not msgspec's, as they stand."""
    read, place = json.JSONDecoder().raw_decode, _past(text, text.index("{") + 1)
    while text[place] != "}":
        name, place = read(text, place)
        start = _past(text, place)
        _, place = read(text, start)
        yield name, text[start:place].encode()
        place = _past(text, place)


def _items(text: str) -> Iterator[bytes]:
    """As `_pairs`, of an array."""
    read, place = json.JSONDecoder().raw_decode, _past(text, text.index("[") + 1)
    while text[place] != "]":
        start = place
        _, place = read(text, start)
        yield text[start:place].encode()
        place = _past(text, place)


def _past(text: str, place: int) -> int:
    """Where the next value begins."""
    while text[place] in " \t\r\n,:":
        place += 1
    return place


def elements(array: bytes) -> list[bytes]:
    """The elements of a JSON array, each one's bytes as they stand; none of anything else.

    >>> elements(b'[ 1.0, {"a" : 2} ]'), elements(b"{}")
    ([b'1.0', b'{"a" : 2}'], [])
    """
    try:
        return [bytes(raw) for raw in msgspec.json.decode(array, type=list[msgspec.Raw])]
    except _REFUSALS:
        return list(_items(str(array, "utf-8"))) if isinstance(loads(array), list) else []


def join_members(members: Mapping[str, bytes]) -> bytes:
    """A JSON object of such members."""
    return b"{" + b",".join(dumps(name) + b":" + raw for name, raw in members.items()) + b"}"


def get_object(found: Any, key: str) -> Mapping[str, Any]:
    """A member that should be an object; anything else is an empty one."""
    inner = found.get(key) if isinstance(found, Mapping) else None
    return inner if isinstance(inner, Mapping) else EMPTY


def get_array(found: Any, key: str) -> list[Any]:
    """A member that should be an array; anything else is an empty one."""
    inner = found.get(key) if isinstance(found, Mapping) else None
    return inner if isinstance(inner, list) else []


def get_string(found: Any, key: str) -> str:
    """A member that should be a string; anything else is an empty one."""
    inner = found.get(key) if isinstance(found, Mapping) else None
    return inner if isinstance(inner, str) else ""


def get_count(found: Any, key: str) -> int:
    """A member that should be a count; anything else is 0. One that no column holds is clipped."""
    inner = found.get(key) if isinstance(found, Mapping) else None
    if not isinstance(inner, int) or isinstance(inner, bool):
        return 0
    return max(-_MOST, min(inner, _MOST))


def positive_counts(found: Mapping[str, Any]) -> dict[str, int]:
    """The counts above 0 of an object, by their names without `_tokens`."""
    names = [key for key in found if get_count(found, key) > 0 and len(key) <= _LONGEST and key.isprintable()]
    return {name.removesuffix("_tokens"): get_count(found, name) for name in names}


def limit_counts(found: Mapping[str, int]) -> dict[str, int]:
    """As many counts as a record holds, of an answer that may name them without end."""
    return dict(islice(found.items(), _KINDS))


def _utf8(body: bytes) -> str:
    try:
        return str(body, "utf-8")
    except UnicodeDecodeError as error:
        raise InvalidBody(f"the request body is not UTF-8: byte {error.start}") from None


def _strict_object(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text, parse_constant=_refuse)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise InvalidBody(f"the request body is not JSON: {error.msg} at {where}") from None
    except RecursionError:
        raise InvalidBody("the request body is nested too deeply") from None
    except ValueError as error:
        raise InvalidBody(f"the request body is not JSON: {error}") from None
    if not isinstance(found, dict):
        raise InvalidBody("the request body is not a JSON object")
    return found


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is not a JSON value")

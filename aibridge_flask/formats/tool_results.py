"""What a tool gave, in the few kinds of content that models take: texts and pictures.

https://modelcontextprotocol.io/specification/2025-11-25/server/tools#tool-result
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ..model import ToolResult
from . import body

_PICTURES = ("image/png", "image/jpeg", "image/gif", "image/webp")
_MOST = 1 << 20  # of texts all together: more than any model's context
_BLOCKS = 1000
_LARGEST = 5 << 20  # of a picture, in base64: APIs refuse the whole request for a larger one


@dataclass(frozen=True, slots=True)
class ContentPart:
    """A text, or a picture in base64 with its media type."""

    text: str = ""
    picture: str = ""
    media_type: str = ""


def parts(result: ToolResult) -> tuple[ContentPart, ...]:
    """What of a result a model can read; nothing for a result that is empty."""
    if result.error:
        return (ContentPart(f"Error: {result.error}"),)
    found = tuple(part for block in result.content[:_BLOCKS] for part in _parts(block))
    if not found and result.structured:
        found = (ContentPart(body.dumps(dict(result.structured)).decode()),)
    if not found and result.is_error:
        return (ContentPart("Error: the tool failed and gave no reason"),)
    return _bounded(found)


def as_text(result: ToolResult) -> str:
    """For APIs whose tool results are texts alone: a picture is named, not given."""
    said = (part.text or _left_out(part.media_type) for part in parts(result))
    text = "\n".join(said)
    return f"Error: {text}" if result.is_error and not text.startswith("Error") else text


def _parts(block: Mapping[str, Any]) -> Iterator[ContentPart]:
    kind, resource = body.get_string(block, "type"), body.get_object(block, "resource")
    if kind == "text":
        found = ContentPart(body.get_string(block, "text"))
    elif kind == "resource" and "text" in resource:
        found = ContentPart(body.get_string(resource, "text"))
    elif kind == "resource":
        found = _media(body.get_string(resource, "mimeType"), body.get_string(resource, "blob"))
    elif kind == "resource_link":
        named = body.get_string(block, "title") or body.get_string(block, "name")
        found = ContentPart(f"{named}: {body.get_string(block, 'uri')}")
    elif kind in ("image", "audio"):
        found = _media(body.get_string(block, "mimeType"), body.get_string(block, "data"))
    else:
        found = ContentPart(body.dumps(dict(block)).decode())
    if found.text or found.picture:
        yield found


def _media(media_type: str, data: str) -> ContentPart:
    picture = media_type in _PICTURES and 0 < len(data) <= _LARGEST
    return ContentPart("", data, media_type) if picture else ContentPart(_left_out(media_type))


def _left_out(media_type: str) -> str:
    return f"[content of type {media_type or 'unknown'} left out]"


def _bounded(found: tuple[ContentPart, ...]) -> tuple[ContentPart, ...]:
    left, kept = _MOST, []
    for part in found:
        if len(part.text) > left:
            kept.append(ContentPart(part.text[:left] + "\n[cut off: too long]"))
            break
        left -= len(part.text)
        kept.append(part)
    return tuple(kept)

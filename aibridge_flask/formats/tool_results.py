"""A tool's result as the kinds of content that models accept: texts and images.

https://modelcontextprotocol.io/specification/2025-11-25/server/tools#tool-result
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ..model import ToolResult
from . import body

_IMAGE_TYPES = ("image/png", "image/jpeg", "image/gif", "image/webp")
_NO_REASON = "the tool failed and gave no reason"
_MAX_TEXT_LENGTH = 1 << 20  # all texts of a result together: more than any model's context
_MAX_BLOCKS = 1000
_MAX_FAILURE_LENGTH = 1000  # of a record
_MAX_IMAGE_LENGTH = 5 << 20  # in base64: APIs refuse the whole request for a larger image


@dataclass(frozen=True, slots=True)
class ContentPart:
    """A text, or an image in base64 with its media type."""

    text: str = ""
    image: str = ""
    media_type: str = ""


def content_parts(result: ToolResult) -> tuple[ContentPart, ...]:
    """Returns what a model can read of a result; () for an empty result."""
    if result.error:
        return (ContentPart(f"Error: {result.error}"),)
    parts = tuple(part for block in result.content[:_MAX_BLOCKS] for part in _block_parts(block))
    if not parts and result.structured:
        parts = (ContentPart(body.dumps(dict(result.structured)).decode()),)
    if not parts and result.is_error:
        return (ContentPart(f"Error: {_NO_REASON}"),)
    return _limit_text(parts)


def as_text(result: ToolResult) -> str:
    """Returns a result for APIs whose tool results are texts only: an image becomes a note."""
    texts = (part.text or _omission_note(part.media_type) for part in content_parts(result))
    text = "\n".join(texts)
    return f"Error: {text}" if result.is_error and not text.startswith("Error") else text


def failure_text(result: ToolResult) -> str:
    """Returns why a call failed, in the tool's own words if it has any; "" if it did not fail."""
    if result.error or not result.is_error:
        return result.error
    words = "\n".join(part.text for part in content_parts(result) if part.text).strip()
    return words.removeprefix("Error: ")[:_MAX_FAILURE_LENGTH] or _NO_REASON


def _block_parts(block: Mapping[str, Any]) -> Iterator[ContentPart]:
    """Yields the part of an MCP content block, unless it is empty."""
    kind, resource = body.get_string(block, "type"), body.get_object(block, "resource")
    if kind == "text":
        part = ContentPart(body.get_string(block, "text"))
    elif kind == "resource" and "text" in resource:
        part = ContentPart(body.get_string(resource, "text"))
    elif kind == "resource":
        part = _media_part(body.get_string(resource, "mimeType"), body.get_string(resource, "blob"))
    elif kind == "resource_link":
        title = body.get_string(block, "title") or body.get_string(block, "name")
        part = ContentPart(f"{title}: {body.get_string(block, 'uri')}")
    elif kind in ("image", "audio"):
        part = _media_part(body.get_string(block, "mimeType"), body.get_string(block, "data"))
    else:
        part = ContentPart(body.dumps(dict(block)).decode())
    if part.text or part.image:
        yield part


def _media_part(media_type: str, data: str) -> ContentPart:
    is_image = media_type in _IMAGE_TYPES and 0 < len(data) <= _MAX_IMAGE_LENGTH
    return ContentPart("", data, media_type) if is_image else ContentPart(_omission_note(media_type))


def _omission_note(media_type: str) -> str:
    return f"[content of type {media_type or 'unknown'} left out]"


def _limit_text(parts: tuple[ContentPart, ...]) -> tuple[ContentPart, ...]:
    remaining, limited = _MAX_TEXT_LENGTH, []
    for part in parts:
        if len(part.text) > remaining:
            limited.append(ContentPart(part.text[:remaining] + "\n[cut off: too long]"))
            break
        remaining -= len(part.text)
        limited.append(part)
    return tuple(limited)

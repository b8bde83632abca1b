"""The members of a request that Bedrock takes: it refuses the whole request for one that it does not know.

What need not change keeps its bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

from ...formats import body
from . import models
from .models import Model

_REMINDER = "<system-reminder>\n{}\n</system-reminder>"


def fit_system(raw: bytes, model: Model) -> bytes:
    """Returns `system` in the shape that Bedrock takes."""
    return _with_fitted_blocks(raw, model)


def fit_tools(raw: bytes, model: Model, betas: Collection[str]) -> bytes:
    """Returns `tools` with the members that Bedrock takes together with these betas."""
    return _with_elements(raw, lambda tool: _fit_tool(tool, model, betas))


def fit_messages(raw: bytes, model: Model) -> bytes:
    """Returns `messages` in the shape that Bedrock takes.

    Where the model takes no messages of role `system`, their words become the user's, in their place.
    """
    fitted = _with_fitted_blocks(raw, model)
    if model.takes_system_messages or b"system" not in fitted:
        return fitted
    messages = [(element, body.loads(element)) for element in body.array_elements(fitted)]
    if not any(_has_role(message, "system") for _, message in messages):
        return fitted
    return b"[" + b",".join(_without_system(messages)) + b"]"


def _with_fitted_blocks(raw: bytes, model: Model) -> bytes:
    if b"cache_control" not in raw:
        return raw
    return _with_elements(raw, lambda block: _fit_block(block, model))


def _with_elements(raw: bytes, fit: Callable[[Any], Any]) -> bytes:
    """Returns a JSON array whose elements were fitted; its bytes if none was changed."""
    elements = body.array_elements(raw)
    values = [body.loads(element) for element in elements]
    fitted = [fit(value) for value in values]
    if fitted == values:
        return raw
    parts = zip(elements, values, fitted, strict=True)
    return b"[" + b",".join(old if value == new else body.dumps(new) for old, value, new in parts) + b"]"


def _fit_block(block: Any, model: Model) -> Any:
    """Fits a message or one of its blocks, whose `content` may hold further blocks."""
    if not isinstance(block, dict):
        return block
    fitted = dict(block)
    if isinstance(block.get("cache_control"), dict):
        fitted["cache_control"] = _only(block["cache_control"], model.cache_control_members)
    if isinstance(block.get("content"), list):
        fitted["content"] = [_fit_block(inner, model) for inner in block["content"]]
    return fitted


def _fit_tool(tool: Any, model: Model, betas: Collection[str]) -> Any:
    fitted = _fit_block(tool, model)
    if not isinstance(fitted, dict):
        return tool
    refused = {name for name, beta in models.BETA_TOOL_MEMBERS.items() if beta not in betas}
    if fitted.get("type", "custom") != "custom":  # the members of Anthropic's own tools differ
        refused |= models.UNSUPPORTED_TOOL_MEMBERS
        return {name: value for name, value in fitted.items() if name not in refused}
    return _only(fitted, model.tool_members | models.BETA_TOOL_MEMBERS.keys() - refused)


def _only(members: Mapping[str, Any], names: Collection[str]) -> dict[str, Any]:
    return {name: value for name, value in members.items() if name in names}


def _has_role(message: Any, role: str) -> bool:
    return body.get_string(message, "role") == role


def _without_system(messages: Iterable[tuple[bytes, Any]]) -> list[bytes]:
    """Adds the words of system messages to the user's message before them, or makes one of them."""
    fitted: list[tuple[bytes, Any]] = []
    for raw, message in messages:
        if not _has_role(message, "system"):
            fitted.append((raw, message))
            continue
        follows_user = bool(fitted) and _has_role(fitted[-1][1], "user")
        before = fitted.pop()[1] if follows_user else {"role": "user", "content": []}
        added = [_as_reminder(block) for block in _blocks(message)]
        joined = {**before, "content": [*_blocks(before), *added]}
        fitted.append((body.dumps(joined), joined))
    return [raw for raw, _ in fitted]


def _blocks(message: Mapping[str, Any]) -> list[Any]:
    content = message.get("content")
    return content if isinstance(content, list) else [{"type": "text", "text": content}]


def _as_reminder(block: Any) -> Any:
    """Claude knows these tags: its clients speak in them to the model in the user's place."""
    text = body.get_string(block, "text")
    return {**block, "text": _REMINDER.format(text)} if text else block

"""The members of a request that Bedrock takes: it refuses the whole request for one that it does not know.

What need not change keeps its bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

from ...formats import body
from . import models
from .models import Model

_REMINDER = "<system-reminder>\n{}\n</system-reminder>"
Elements = list[tuple[bytes, Any]]
"""The elements of an array, each as JSON and as the value that it holds."""


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
    if model.takes_system_messages or b'"system"' not in raw:
        return _with_fitted_blocks(raw, model)
    return _with_elements(raw, lambda message: _fit_block(message, model), _without_system)


def _with_fitted_blocks(raw: bytes, model: Model) -> bytes:
    if b"cache_control" not in raw:
        return raw
    return _with_elements(raw, lambda block: _fit_block(block, model))


def _with_elements(
    raw: bytes, fit: Callable[[Any], Any], fold: Callable[[Elements], Elements] = list
) -> bytes:
    """Returns a JSON array whose elements were fitted, then folded; its bytes if none was changed."""
    elements = body.array_elements(raw)
    fitted = [element for element, _ in fold([_fit_element(element, fit) for element in elements])]
    return raw if fitted == elements else b"[" + b",".join(fitted) + b"]"


def _fit_element(element: bytes, fit: Callable[[Any], Any]) -> tuple[bytes, Any]:
    value = body.loads(element)
    fitted = fit(value)
    return (element if fitted == value else body.dumps(fitted)), fitted


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


def _without_system(messages: Elements) -> Elements:
    """Adds the words of system messages to the user's message before them, or makes one of them."""
    fitted: Elements = []
    for raw, message in messages:
        if not _has_role(message, "system"):
            fitted.append((raw, message))
            continue
        follows_user = bool(fitted) and _has_role(fitted[-1][1], "user")
        before = fitted.pop()[1] if follows_user else {"role": "user", "content": []}
        added = [_as_reminder(block) for block in _blocks(message)]
        joined = {**before, "content": [*_blocks(before), *added]}
        fitted.append((body.dumps(joined), joined))
    return fitted


def _blocks(message: Mapping[str, Any]) -> list[Any]:
    content = message.get("content")
    return content if isinstance(content, list) else [{"type": "text", "text": content}]


def _as_reminder(block: Any) -> Any:
    """Claude knows these tags: its clients speak in them to the model in the user's place."""
    text = body.get_string(block, "text")
    return {**block, "text": _REMINDER.format(text)} if text else block

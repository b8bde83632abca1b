"""Sets values in JSON with comments. What is not set keeps its bytes.

The library `json-five` parses the text; its tokens say where each value stands.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

_INDENT = "  "


def set_value(text: str, path: Sequence[str], value: object) -> str:
    """Returns the text with the member at `path` set; objects on the way are made.

    Raises ValueError if the text is not JSON, or something on the way is no object.

    >>> print(set_value('{\\n  // mine\\n  "a": {"b": 1},\\n}', ["a", "c"], 2))
    {
      // mine
      "a": {"b": 1,
        "c": 2},
    }
    >>> set_value('{"a": 1}', ["a"], 2), set_value("", ["a", "b"], 1)
    ('{"a": 2}', '{\\n  "a": {\\n    "b": 1\\n  }\\n}\\n')
    """
    text = text if text.strip() else "{}\n"
    node = _parse(text)
    for depth, name in enumerate(path):
        members = _members(node)
        if name not in members:
            return _insert(text, node, depth, name, _nested(path[depth + 1 :], value))
        node = members[name]
    return f"{text[: node._tok.index]}{json.dumps(value, ensure_ascii=False)}{text[_end(node) :]}"


def values_of(text: str) -> Any:
    """Returns the values. Raises ValueError."""
    from json5 import loads  # slow to import, and seldom needed

    try:
        return loads(text) if text.strip() else {}
    except Exception as error:
        raise ValueError("it is not JSON") from error


def _parse(text: str) -> Any:
    from json5.loader import ModelLoader, loads

    try:
        return loads(text, loader=ModelLoader()).value
    except Exception as error:
        raise ValueError("it is not JSON") from error


def _members(node: Any) -> dict[str, Any]:
    """Returns the values of an object. A name that stands there twice: the last, as parsers take it."""
    if not hasattr(node, "keys"):
        raise ValueError("an object is expected where the settings belong")
    names = [getattr(key, "characters", getattr(key, "name", "")) for key in node.keys]
    return dict(zip(names, node.values, strict=True))


def _end(node: Any) -> int:
    end: int = (getattr(node, "_end_tok", None) or node._tok).end
    return end


def _nested(path: Sequence[str], value: object) -> object:
    return {path[0]: _nested(path[1:], value)} if path else value


def _insert(text: str, node: Any, depth: int, name: str, value: object) -> str:
    """Returns the text with a new last member of an object."""
    indent, outer = _INDENT * (depth + 1), _INDENT * depth
    encoded = json.dumps(value, indent=len(_INDENT), ensure_ascii=False).replace("\n", f"\n{indent}")
    member = f"\n{indent}{json.dumps(name)}: {encoded}"
    if not node.values:
        at = node._tok.end
        return f"{text[:at]}{member}\n{outer}{text[at:].lstrip() if _is_blank(text, node) else text[at:]}"
    at = node.trailing_comma._tok.end if node.trailing_comma else _end(node.values[-1])
    end = at + len(_comment_after(text[at:]))
    before, after = ("", ",") if node.trailing_comma else (",", "")
    return f"{text[:at]}{before}{text[at:end]}{member}{after}{text[end:]}"


def _comment_after(text: str) -> str:
    """Returns the comment that ends the line, which belongs to what stands before it."""
    line = text.partition("\n")[0]
    return line if line.strip().startswith("//") else ""


def _is_blank(text: str, node: Any) -> bool:
    return not text[node._tok.end : node._end_tok.index].strip()

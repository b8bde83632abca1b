"""Brings the input schemas of MCP tools into the shape that an API takes: one that it refuses would make it
refuse every request.

References are replaced by what they refer to. What may not stand at the top goes into its description, where
the model reads it, so nothing is lost; the MCP server checks the input in any case.

https://platform.claude.com/docs/en/agents-and-tools/tool-use/overview
https://platform.openai.com/docs/guides/function-calling
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any
from urllib.parse import unquote

from msgspec import Struct

from ..model import Tool
from . import body

_COMBINATORS = ("anyOf", "oneOf", "allOf")
_NOT_AT_TOP = (*_COMBINATORS, "not", "enum", "const")
_DEFINITIONS = ("$defs", "definitions")
_ABOUT_DOCUMENT = ("$schema", "$id", "$anchor")
# The members of a schema that hold others: one, several, or several by name.
_ONE = frozenset((
    "items", "additionalItems", "additionalProperties", "contains", "propertyNames", "not", "if", "then",
    "else", "unevaluatedItems", "unevaluatedProperties",
))  # fmt: skip
_SEVERAL = frozenset((*_COMBINATORS, "prefixItems"))
_NAMED = frozenset(("properties", "patternProperties", "dependentSchemas", *_DEFINITIONS))
_MAX_NODES = 20_000
_CONDITION = "The arguments must also match this JSON Schema: "
Schema = Mapping[str, Any]


class SchemaRules(Struct, frozen=True):
    """What an API takes. If it `takes_references`, a schema that refers to itself can stay as it is.
    `needs_items`: arrays tell their items, and objects at the top their properties. `property_name` is a
    regular expression, empty if every name will do.
    """

    takes_references: bool
    needs_items: bool
    property_name: str = ""


class _Unfit(ValueError):
    """The schema cannot be brought into shape, for the reason given."""


class _RefersToItself(_Unfit):
    """The schema is recursive: no reference in it can be replaced."""


@lru_cache(maxsize=1024)
def fit(tool: Tool, rules: SchemaRules) -> tuple[Schema, str]:
    """Returns the tool's schema in a shape that the API takes, or the reason why there is none.

    Kept, since requests with many tools of their own get another selection each.
    """
    try:
        return _with_object_at_top(_fit(tool.input_schema, rules), rules), ""
    except _Unfit as error:
        return {}, str(error)
    except RecursionError:
        return {}, "it is nested too deeply"


def _fit(schema: Schema, rules: SchemaRules) -> Any:
    try:
        return _Fitting(schema, rules, keeps_references=False).fit(schema)
    except _RefersToItself:
        if not rules.takes_references:
            raise
        return _Fitting(schema, rules, keeps_references=True).fit(schema)


class _Fitting:
    """Fits one schema; `root` is the document that its references refer to."""

    def __init__(self, root: Schema, rules: SchemaRules, keeps_references: bool) -> None:
        self._root, self._rules, self._nodes = root, rules, 0
        self._keeps_references = keeps_references

    def fit(self, schema: Any, path: tuple[str, ...] = ()) -> Any:
        """Returns the schema without what the API refuses. `path` are the references that lead to it."""
        self._nodes += 1
        if self._nodes > _MAX_NODES:
            raise _Unfit("it is too large")
        if isinstance(schema, bool):
            return schema
        if not isinstance(schema, dict):
            raise _Unfit(f"{str(schema)[:40]!r} stands where a schema belongs")
        if "$ref" not in schema or self._keeps_references:
            return self._fit_members(schema, path)
        reference = str(schema["$ref"])
        if reference in path:
            raise _RefersToItself("it refers to itself")
        target = self.fit(self._resolve(reference), (*path, reference))
        own = {name: value for name, value in schema.items() if name != "$ref"}
        return {**(target if isinstance(target, dict) else {}), **self._fit_members(own, path)}

    def _fit_members(self, schema: Schema, path: tuple[str, ...]) -> dict[str, Any]:
        dropped = _ABOUT_DOCUMENT if self._keeps_references else _ABOUT_DOCUMENT + _DEFINITIONS
        members = {name: value for name, value in _modern(schema).items() if name not in dropped}
        fitted = {name: self._fit_member(name, value, path) for name, value in members.items()}
        if self._rules.needs_items and _is_array(fitted):
            fitted.setdefault("items", {})
        return fitted

    def _fit_member(self, name: str, value: Any, path: tuple[str, ...]) -> Any:
        if name in _ONE:
            return self.fit(value, path)
        if name in _SEVERAL and isinstance(value, list):
            return [self.fit(inner, path) for inner in value]
        if name not in _NAMED or not isinstance(value, dict):
            return value
        if name == "properties":
            self._check_names(value)
        return {key: self.fit(inner, path) for key, inner in value.items()}

    def _check_names(self, properties: Schema) -> None:
        pattern = self._rules.property_name
        refused = [name for name in properties if pattern and not re.fullmatch(pattern, name)]
        if refused:
            raise _Unfit(f"the API refuses the name of its property {refused[0][:80]!r}")

    def _resolve(self, reference: str) -> Any:
        """Returns what a reference within the document refers to (a JSON pointer, RFC 6901)."""
        value: Any = self._root
        for step in _steps(reference):
            if isinstance(value, dict) and step in value:
                value = value[step]
            elif isinstance(value, list) and step.isdecimal() and int(step) < len(value):
                value = value[int(step)]
            else:
                raise _Unfit(f"it refers to {reference[:80]!r}, which is not there")
        return value


def _steps(reference: str) -> Iterator[str]:
    if reference != "#" and not reference.startswith("#/"):
        raise _Unfit(f"it refers to {reference[:80]!r}, which is outside of it")
    for step in reference.split("/")[1:]:
        yield unquote(step).replace("~1", "/").replace("~0", "~")


def _modern(schema: Schema) -> Schema:
    """Returns a schema whose tuples are written as in draft 2020-12, which the APIs ask for."""
    if not isinstance(schema.get("items"), list):
        return schema
    others = {key: value for key, value in schema.items() if key not in ("items", "additionalItems")}
    rest = {"items": schema["additionalItems"]} if "additionalItems" in schema else {}
    return {**others, "prefixItems": schema["items"], **rest}


def _is_array(schema: Schema) -> bool:
    kind = schema.get("type")
    return kind == "array" or (isinstance(kind, list) and "array" in kind)


def _with_object_at_top(schema: Any, rules: SchemaRules) -> Schema:
    """Returns a schema whose top is an object with properties and without combinators."""
    if not isinstance(schema, dict):
        schema = {}
    kind = schema.get("type", "object")
    if kind != "object" and not (isinstance(kind, list) and "object" in kind):
        raise _Unfit(f"its input is no object, but {str(kind)[:40]!r}")
    moved = {name: schema[name] for name in _NOT_AT_TOP if name in schema}
    kept = {name: value for name, value in schema.items() if name not in moved}
    properties = {**_branch_properties(moved), **body.get_object(kept, "properties")}
    fitted = {**kept, "type": "object"}
    if properties or rules.needs_items:
        fitted["properties"] = properties
    if moved:
        words = f"{_CONDITION}{body.dumps(moved).decode()}"
        description = body.get_string(kept, "description")
        fitted["description"] = f"{description}\n{words}" if description else words
    return fitted


def _branch_properties(schema: Schema) -> dict[str, Any]:
    """Returns the properties that stand in the branches of combinators, each with all its schemas."""
    found: dict[str, list[Any]] = {}
    for branch in (branch for name in _COMBINATORS for branch in schema.get(name) or ()):
        for name, property_schema in body.get_object(branch, "properties").items():
            schemas = found.setdefault(name, [])
            if property_schema not in schemas:
                schemas.append(property_schema)
        inner = {name: branch[name] for name in _COMBINATORS if isinstance(branch, dict) and name in branch}
        for name, property_schema in _branch_properties(inner).items() if inner else ():
            found.setdefault(name, []).append(property_schema)
    return {name: schemas[0] if len(schemas) == 1 else {"anyOf": schemas} for name, schemas in found.items()}

"""The schemas of MCP tools, in the shape that each API takes."""

from __future__ import annotations

from typing import Any

import pytest

from aibridge_flask.formats import tool_schema
from aibridge_flask.formats.tool_schema import SchemaRules
from aibridge_flask.model import Tool

STRICT = SchemaRules(takes_references=False, needs_items=True, property_name="[a-z]{1,4}")
LENIENT = SchemaRules(takes_references=True, needs_items=False)
TEXT, NUMBER = {"type": "string"}, {"type": "number"}
Schema = dict[str, Any]


def fit(schema: Any, rules: SchemaRules = STRICT) -> tuple[Any, str]:
    fitted, reason = tool_schema.fit(Tool("bmcp_s_t", "s", "http://s", "t", "", schema), rules)
    return dict(fitted), reason


def an_object(**properties: Any) -> Schema:
    return {"type": "object", "properties": properties}


@pytest.mark.parametrize(
    "schema",
    [
        an_object(),
        an_object(a=TEXT, b={"anyOf": [TEXT, NUMBER]}),
        {
            **an_object(a={"enum": ["x"], "default": {"$ref": "data"}}),
            "required": ["a"],
            "x-own": {"items": 1},
        },
        {**an_object(), "additionalProperties": False, "patternProperties": {"^x": TEXT}},
    ],
)
def test_what_the_api_takes_stays_as_it_is(schema: Schema) -> None:
    assert fit(schema) == (schema, "")


@pytest.mark.parametrize(
    "schema", [{}, {"properties": {}}, {"type": ["object", "null"]}, {"$schema": "draft"}]
)
def test_the_top_becomes_an_object(schema: Schema) -> None:
    assert fit(schema) == (an_object(), "")


@pytest.mark.parametrize(
    ("array", "fitted"),
    [
        ({"type": "array"}, {"type": "array", "items": {}}),
        ({"type": ["array", "null"]}, {"type": ["array", "null"], "items": {}}),
        (
            {"type": "array", "items": [TEXT], "additionalItems": False},
            {"type": "array", "prefixItems": [TEXT], "items": False},
        ),
    ],
)
def test_arrays_tell_what_they_hold(array: Schema, fitted: Schema) -> None:
    assert fit(an_object(a=array)) == (an_object(a=fitted), "")
    assert fit(an_object(a={"anyOf": [array]})) == (an_object(a={"anyOf": [fitted]}), "")


def test_references_are_replaced() -> None:
    schema = {
        "$ref": "#/$defs/Top",
        "$defs": {
            "Top": an_object(
                a={"$ref": "#/$defs/a~1%62", "description": "own"}, b={"$ref": "#/$defs/list/1"}
            ),
            "a/b": {"type": "string", "description": "theirs"},
            "list": [TEXT, NUMBER],
        },
    }
    fitted = an_object(a={"type": "string", "description": "own"}, b=NUMBER)
    assert fit(schema) == (fitted, "")
    assert fit(schema, LENIENT) == (fitted, "")


def test_a_schema_that_refers_to_itself_stays_where_the_api_takes_it() -> None:
    schema = {**an_object(a={"$ref": "#/$defs/T"}), "$defs": {"T": an_object(b={"$ref": "#/$defs/T"})}}
    assert fit(schema, LENIENT) == (schema, "")
    assert fit(schema) == ({}, "it refers to itself")


@pytest.mark.parametrize("name", ["anyOf", "oneOf", "allOf"])
def test_alternatives_at_the_top_become_words(name: str) -> None:
    branches = [{**an_object(a=TEXT), "required": ["a"]}, an_object(a=NUMBER, b=TEXT)]
    fitted, reason = fit({"description": "Either.", name: branches})
    assert reason == ""
    assert fitted["type"] == "object"
    assert fitted["properties"] == {"a": {"anyOf": [TEXT, NUMBER]}, "b": TEXT}
    assert name not in fitted
    assert fitted["description"].startswith("Either.\nThe arguments must also match")
    assert '"required":["a"]' in fitted["description"]


def test_other_conditions_at_the_top_become_words() -> None:
    fitted, _ = fit({**an_object(a=TEXT), "not": {"required": ["a"]}, "anyOf": [{"required": ["a"]}]})
    assert fitted["properties"] == {"a": TEXT}
    assert not {"not", "anyOf"} & set(fitted)
    assert '"not":{"required":["a"]}' in fitted["description"]


def doubling(levels: int) -> Schema:
    """A small schema that is huge without references."""
    twice = {str(level): an_object(a=to(level + 1), b=to(level + 1)) for level in range(levels)}
    return {**an_object(a=to(0)), "$defs": {**twice, str(levels): TEXT}}


def to(level: int) -> Schema:
    return {"$ref": f"#/$defs/{level}"}


def nested(levels: int) -> Schema:
    schema = an_object()
    for _ in range(levels):
        schema = an_object(a=schema)
    return schema


@pytest.mark.parametrize(
    ("schema", "reason"),
    [
        ({"type": "string"}, "its input is no object, but 'string'"),
        (an_object(**{"$top": TEXT}), "the API refuses the name of its property '$top'"),
        (an_object(a=an_object(**{"": TEXT})), "the API refuses the name of its property ''"),
        (an_object(a="string"), "'string' stands where a schema belongs"),
        (an_object(a={"type": "array", "items": "string"}), "'string' stands where a schema belongs"),
        (
            an_object(a={"$ref": "http://elsewhere/x"}),
            "it refers to 'http://elsewhere/x', which is outside of it",
        ),
        (an_object(a={"$ref": 7}), "it refers to '7', which is outside of it"),
        (an_object(a={"$ref": "#/$defs/none"}), "it refers to '#/$defs/none', which is not there"),
        (an_object(a={"$ref": "#/properties/a"}), "it refers to itself"),
        (doubling(40), "it is too large"),
        (nested(5000), "it is nested too deeply"),
    ],
)
def test_what_cannot_be_brought_into_shape_has_a_reason(schema: Schema, reason: str) -> None:
    assert fit(schema) == ({}, reason)

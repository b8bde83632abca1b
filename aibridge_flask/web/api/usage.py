"""`GET usage`, `GET tools`: sums, as JSON and as CSV."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import IO, Any

from flask import Response
from marshmallow import fields, validate
from sqlalchemy import Engine
from webargs.fields import DelimitedList

from ...model import Actor
from ...reading import focus, search, usage_rows
from ...reading import tools as tool_queries
from ...reading import usage as queries
from ...reading.csv_file import write_csv
from ...reading.grouping import KEYS, MAX_KEYS
from ...reading.periods import Period, parse_time
from ...reading.usage import Question
from ...reading.values import encode
from ...records.sum_tables import AMOUNTS
from ..slices import file_response
from .blueprint import JSON, RecordsBlueprint
from .documents import Document, TokenCountsDocument, flag, milliseconds, money, number, text, texts
from .questions import ListQuestion, limit, page_of
from .reader import Reader, json_response

CSV = "text/csv; charset=utf-8"
_TOOL_NAMES = (*tool_queries.TOOL_KEYS, *usage_rows.TOOL_SUMS)
_CSV_SECONDS = 60.0  # it has no bound; the database answers within the usual time
_ESTIMATE = "An estimate by a histogram; null: not known."


class SumQuestion(ListQuestion):
    group_by = DelimitedList(
        fields.String(validate=validate.OneOf(KEYS)),
        load_default=(),
        validate=validate.Length(max=MAX_KEYS),
        metadata={"description": "Up to three keys, with commas between them."},
    )
    started_after = fields.String(load_default="", metadata={"description": "From this time on (RFC 3339)."})
    started_before = fields.String(load_default="", metadata={"description": "Before this time (RFC 3339)."})
    limit = limit(1000, 10_000)


class UsageQuestion(SumQuestion):
    format = fields.String(load_default="json", validate=validate.OneOf(("json", "csv", "focus")))


class ToolsQuestion(SumQuestion):
    format = fields.String(load_default="json", validate=validate.OneOf(("json", "csv")))


class UsageSumsDocument(TokenCountsDocument):
    requests = number("Interceptions that have ended.")
    errors = number("Those with an `error_type`.")
    sessions = number("Different sessions; null if the period is longer than 31 days.", allow_none=True)
    unpriced_requests = number("Those whose price is not known, or not of all of it.")
    cost_micros = money("What is priced of it.")
    output_micros = money("The part of output.")
    cache_read_micros = money("The part of reads from the cache.")
    cache_write_micros = money("The part of writes to the cache.")
    fees_micros = money("The part of searches and other fees. What is left is input that was not cached.")
    cache_saved_micros = money("What the cache saved.")
    first_byte_p50_ms = milliseconds(_ESTIMATE, allow_none=True)
    first_byte_p95_ms = milliseconds(_ESTIMATE, allow_none=True)
    duration_p50_ms = milliseconds(_ESTIMATE, allow_none=True)
    duration_p95_ms = milliseconds(_ESTIMATE, allow_none=True)


def _keys() -> dict[str, fields.Field[Any]]:
    return {key: text("If grouped by it.", required=False) for key in KEYS}


_UsageResultDocument = type("UsageResultDocument", (UsageSumsDocument,), _keys())


class UsageDocument(Document):
    count = number("Results of all pages; 10000 if there are more.")
    totals = fields.Nested(UsageSumsDocument, required=True)
    unpriced_models = texts("Models with `unpriced_requests`; the 100 with the most.")
    results = fields.List(fields.Nested(_UsageResultDocument), required=True)


class ToolSumsDocument(Document):
    calls = number("Calls of the tool.")
    failures = number("Those with an `invocation_error`.")
    duration_ms = number("How long the bridge ran it.")


class _ToolDocument(ToolSumsDocument):
    tool = text("The tool's name.")
    server_url = text("The MCP server of an injected tool.")
    injected = flag("The bridge has offered it.")


_ToolResultDocument = type("ToolResultDocument", (_ToolDocument,), _keys())


class ToolsDocument(Document):
    count = number("Results of all pages; 10000 if there are more.")
    totals = fields.Nested(ToolSumsDocument, required=True)
    results = fields.List(fields.Nested(_ToolResultDocument), required=True)


def question_of(values: Mapping[str, Any]) -> Question:
    """Raises BadQuestion."""
    after, before = (
        tuple(parse_time(name, values[name]) for _ in (1,) if values[name])
        for name in ("started_after", "started_before")
    )
    keys = tuple(dict.fromkeys(values["group_by"]))
    return Question(keys, search.parse(values["q"]), Period(after, before))


def add_usage(blueprint: RecordsBlueprint, reader: Reader) -> None:
    @blueprint.answers("/usage", UsageDocument, UsageQuestion, media_types=(JSON, CSV))
    def usage(actor: Actor, values: dict[str, Any]) -> Response:
        """Sums of ended interceptions, by up to three keys, ordered by cost."""
        question, page = question_of(values), page_of(values)
        if values["format"] == "focus":
            return _csv(reader, lambda engine: _focus_file(engine, actor, question))
        if values["format"] == "csv":
            names = (*question.keys, *_SUMS)
            return _csv(reader, lambda engine: write_csv(names, queries.every_usage(engine, actor, question)))
        return json_response(
            reader.ask(lambda engine: encode(queries.usage_report(engine, actor, question, page)))
        )

    @blueprint.answers("/tools", ToolsDocument, ToolsQuestion, media_types=(JSON, CSV))
    def tools(actor: Actor, values: dict[str, Any]) -> Response:
        """Sums of tool calls, by tool and server and up to three keys, ordered by calls."""
        question, page = question_of(values), page_of(values)
        if values["format"] == "csv":
            names = (*question.keys, *_TOOL_NAMES)
            return _csv(
                reader, lambda engine: write_csv(names, tool_queries.every_tool(engine, actor, question))
            )
        return json_response(
            reader.ask(lambda engine: encode(tool_queries.tools(engine, actor, question, page)))
        )


def _focus_file(engine: Engine, actor: Actor, question: Question) -> IO[bytes]:
    asked = Question(focus.KEYS, question.search, question.period)
    return write_csv(focus.COLUMNS, focus.focus_rows(queries.every_amount(engine, actor, asked)))


def _csv(reader: Reader, question: Callable[[Engine], IO[bytes]]) -> Response:
    return file_response(reader.stalled, CSV, reader.ask(question, seconds=_CSV_SECONDS))


_SUMS = (*AMOUNTS, "sessions", *queries.PERCENTILES)

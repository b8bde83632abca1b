"""`GET sessions`, `GET sessions/{id}`."""

from __future__ import annotations

from typing import Any

from flask import Response
from marshmallow import ValidationError, fields, validates_schema

from ...model import Actor
from ...reading import search
from ...reading.session import Threads, session
from ...reading.sessions import list_sessions
from .blueprint import ID, RecordsBlueprint
from .documents import (
    Document,
    InitiatorDocument,
    Parameters,
    TokenCountsDocument,
    listing,
    milliseconds,
    money,
    names,
    number,
    text,
    texts,
    time,
    truncated,
)
from .interceptions import ToolUsageDocument
from .questions import ListQuestion, id_of, limit, page_of
from .reader import Reader, json_response


class SessionsQuestion(ListQuestion):
    after_session_id = id_of("The last session of the page before: `next_after_id`.")


class SessionQuestion(Parameters):
    initiator = id_of("Whose session it is, for administrators.")
    after_id = id_of("Threads after this one: `next_after_id`.")
    before_id = id_of("Threads before this one: `next_before_id`.")
    limit = limit(50, 200)

    @validates_schema
    def _has_one_direction(self, data: dict[str, Any], **_: Any) -> None:
        if data["after_id"] and data["before_id"]:
            raise ValidationError("after_id or before_id is expected, not both", "before_id")


class _SessionDocument(Document):
    id = text("The session's id.")
    initiator = fields.Nested(InitiatorDocument, required=True)
    providers = texts("The types of its providers.")
    models = texts("The models that were asked for.")
    client = text("The client's name.")
    metadata = names("The actor's.")
    started_at = time("When its first interception came.")
    ended_at = time("When the last one ended; null while one is running.", allow_none=True)
    last_active_at = time("When something last began or ended.")
    requests = number("Its interceptions.")
    errors = number("Those with an `error_type`.")
    subagents = number("Its agents beside the main one.")
    unpriced_requests = number("Those whose price is not known, or not of all of it.")
    last_prompt = text("The user's newest prompt.")
    token_usage_summary = fields.Nested(TokenCountsDocument, required=True)
    cost_micros = money("Null: no price is known.", allow_none=True)
    truncated = truncated()


class SessionDocument(_SessionDocument):
    threads = number("Its threads in the conversation.")


class AgentDocument(Document):
    agent_id = text("Empty for the main agent.")
    parent_agent_id = text("The agent that has started it.")
    threads = number("Its threads in the conversation.")
    started_at = time("When its first interception came.")
    ended_at = time("When its last one ended; null while one is running.", allow_none=True)
    token_usage = fields.Nested(TokenCountsDocument, required=True)
    cost_micros = money("Null: no price is known.", allow_none=True)


class ThinkingDocument(Document):
    source = text("`thinking`, `reasoning_summary` or `commentary`.")
    truncated = truncated()
    text = text("What the model thought.")


class ActionDocument(Document):
    interception_id = text("The interception.")
    model = text("The model that was asked for.")
    kind = text("`main`, or what the client does beside the conversation.")
    started_at = time("When it came.")
    ended_at = time("When it ended.", allow_none=True)
    first_byte_ms = milliseconds("The time to the first byte.")
    duration_ms = milliseconds("The whole time.")
    error_type = text("Empty: success.")
    error_message = text("What went wrong.")
    token_usage = fields.Nested(TokenCountsDocument, required=True)
    cost_micros = money("Null: no price is known.", allow_none=True)
    thinking = fields.List(fields.Nested(ThinkingDocument), required=True)
    tool_calls = fields.List(fields.Nested(ToolUsageDocument), required=True)
    truncated = truncated()


class ThreadDocument(Document):
    id = text("The first interception's.")
    agent_id = text("Empty for the main agent.")
    parent_agent_id = text("The agent that has started it.")
    kind = text("`main`, or what the client does beside the conversation.")
    model = text("The model that was asked for first.")
    provider = text("The provider's type.")
    provider_name = text("The provider's name.")
    credential_kind = text("`centralized` or `byok`.")
    credential_hint = text("The masked credential.")
    prompt = text("The prompt that it began with.")
    started_at = time("When its first interception came.")
    ended_at = time("When its last one ended; null while one is running.", allow_none=True)
    duration_ms = milliseconds("The time of its interceptions together.")
    attempts = number("How many times an upstream was asked.")
    error_type = text("That of its last interception.")
    error_message = text("That of its last interception.")
    token_usage = fields.Nested(TokenCountsDocument, required=True)
    cost_micros = money("Null: no price is known.", allow_none=True)
    agentic_actions = fields.List(fields.Nested(ActionDocument), required=True)
    truncated = truncated()


class WholeSessionDocument(_SessionDocument):
    agents = fields.List(fields.Nested(AgentDocument), required=True)
    threads = fields.List(fields.Nested(ThreadDocument), required=True)
    next_after_id = text("The next page begins after this thread; null at the end.", allow_none=True)
    next_before_id = text("The page before ends before this thread; null at the start.", allow_none=True)


def add_sessions(blueprint: RecordsBlueprint, reader: Reader) -> None:
    document = listing("SessionListDocument", SessionDocument, "sessions")

    @blueprint.answers("/sessions", document, SessionsQuestion)
    def sessions(actor: Actor, values: dict[str, Any]) -> Response:
        """Sessions, the last active first. One matches if one of its interceptions does."""
        found, page = search.parse(values["q"]), page_of(values, "after_session_id")
        return reader.list(lambda engine: list_sessions(engine, actor, found, page), "sessions")

    @blueprint.answers(f"/sessions/<{ID}:id>", WholeSessionDocument, SessionQuestion, errors=(404,))
    def whole_session(actor: Actor, values: dict[str, Any], id: str) -> Response:
        """One session with its agents, and a page of its threads, oldest first."""
        initiator = values.pop("initiator")
        threads = Threads(**values)
        return json_response(reader.ask(lambda engine: session(engine, actor, id, initiator, threads)))

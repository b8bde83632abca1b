"""`GET interceptions`, `GET interceptions/{id}`."""

from __future__ import annotations

from typing import Any

from flask import Response
from marshmallow import fields

from ...model import Actor
from ...reading import interceptions as queries
from ...reading import search
from .blueprint import ID, RecordsBlueprint
from .documents import (
    Document,
    InitiatorDocument,
    TokenCountsDocument,
    flag,
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
from .questions import PageQuestion, page_of
from .reader import Reader, json_response


class TokenUsageDocument(TokenCountsDocument):
    turn = number("Numbers the responses of an interception.")
    provider_response_id = text("The upstream's id of the response.")
    model = text("The model that served.")
    metadata = fields.Dict(
        keys=fields.String(),
        values=fields.Integer(),
        required=True,
        metadata={"description": "Further kinds, by name."},
    )
    service_tier = text("As the answer names it.")
    speed = text("As the answer names it.")
    inference_geo = text("As the answer names it.")
    cost_micros = money("Null: no price is known.", allow_none=True)
    created_at = time("When it was known.")


class PromptDocument(Document):
    provider_response_id = text("The response to it, empty if the request failed.")
    prompt = text("The user's last text.")
    created_at = time("When it was recorded.")
    truncated = truncated()


class ToolUsageDocument(Document):
    turn = number("Numbers the responses of an interception.")
    provider_response_id = text("The response that has the call.")
    tool_call_id = text("The call's id.")
    item_id = text("The item's id, on the Responses API.")
    tool = text("The tool's name, the server's own for an injected one.")
    input = text("JSON, or plain text for custom tools.")
    injected = flag("The bridge has offered it, and ran it.")
    server_url = text("The MCP server of an injected tool.")
    invocation_error = text("Why the call failed.")
    created_at = time("When it was recorded.")
    duration_ms = number("How long the bridge ran it.")
    truncated = truncated()


class ThoughtSourceDocument(Document):
    source = text("`thinking`, `reasoning_summary` or `commentary`.")


class ThoughtDocument(Document):
    turn = number("Numbers the responses of an interception.")
    content = text("What the model thought.")
    metadata = fields.Nested(ThoughtSourceDocument, required=True)
    created_at = time("When it was recorded.")
    truncated = truncated()


class InterceptionDocument(Document):
    id = text("A UUID: `X-AIBridge-Interception-Id` of the response.")
    initiator_id = text("The actor.")
    initiator = fields.Nested(InitiatorDocument, required=True)
    metadata = names("The actor's.")
    groups = texts("The actor's groups at that time.")
    token_id = text("The gateway token that was used, if any.")
    provider = text("The provider's type.")
    provider_name = text("The provider's name.")
    model = text("The model that was asked for.")
    client = text("The client's name.")
    client_session_id = text("The session's id that the client sent.")
    session_id = text("The client's, else the thread's root, else its own id.")
    user_agent = text("The client's.")
    credential_kind = text("`centralized` or `byok`.")
    credential_hint = text("The masked credential.")
    correlating_tool_call_id = text("The tool call whose result the request carries.")
    thread_parent_id = text("The interception that it continues.", allow_none=True)
    thread_root_id = text("The first one of its thread.", allow_none=True)
    agent_id = text("The subagent's.")
    parent_agent_id = text("The agent that has started the subagent.")
    route = text("The path after the provider's name.")
    kind = text("`main`, or what the client does beside the conversation.")
    streaming = flag("The client asked for a stream.")
    status_code = number("The status of the response, null without one.", allow_none=True)
    started_at = time("When it came.")
    first_byte_at = time("When the first byte of the response came.", allow_none=True)
    ended_at = time("When it ended.", allow_none=True)
    error_type = text("Empty: success.")
    error_message = text("What went wrong.")
    limit_id = text("The limit that refused it, if one did.")
    attempts = number("How many times an upstream was asked.")
    overhead_ms = milliseconds("The bridge's own part of the time to the first byte.")
    first_byte_ms = milliseconds("The time to the first byte.")
    duration_ms = milliseconds("The whole time.")
    wire_exact = flag("No byte was changed. Null: not known yet.", allow_none=True)
    request_sha256 = text("Of the request's body.")
    response_sha256 = text("Of the response's body.")
    cost_micros = money("Null: no price is known.", allow_none=True)
    cost_status = text("`priced`, `partly`, `unpriced` or `estimated`.")
    price_source = text("Where the price is from.")
    price_version = text("Of its source.")
    token_usages = fields.List(fields.Nested(TokenUsageDocument), required=True)
    user_prompts = fields.List(fields.Nested(PromptDocument), required=True)
    tool_usages = fields.List(fields.Nested(ToolUsageDocument), required=True)
    model_thoughts = fields.List(fields.Nested(ThoughtDocument), required=True)
    truncated = truncated()


def add_interceptions(blueprint: RecordsBlueprint, reader: Reader) -> None:
    @blueprint.answers(
        "/interceptions", listing("InterceptionListDocument", InterceptionDocument), PageQuestion
    )
    def interceptions(actor: Actor, values: dict[str, Any]) -> Response:
        """Interceptions with all their parts, newest first."""
        found = search.parse(values["q"])
        page = page_of(values)
        return reader.list(lambda engine: queries.interceptions(engine, actor, found, page))

    @blueprint.answers(f"/interceptions/<{ID}:id>", InterceptionDocument, errors=(404,))
    def interception(actor: Actor, values: dict[str, Any], id: str) -> Response:
        """One interception, whole."""
        return json_response(reader.ask(lambda engine: queries.interception(engine, actor, id)))

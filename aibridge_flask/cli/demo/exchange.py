"""The events of one made-up interception.

Output lengths are log-normal, as those of real answers are: half of them have at most 180 tokens (sigma 1.1).
"""

from __future__ import annotations

import random
from datetime import datetime, timedelta
from math import log

from msgspec import Struct

from ...model import Asked, Usage
from ...records.events import (
    EPOCH,
    Ended,
    Event,
    ModelThought,
    Prompt,
    PromptAnswered,
    Started,
    TokenUsage,
    ToolUsage,
)
from .people import Client, Model, Person
from .texts import FAILURES, INPUTS, SERVER_URL, THOUGHTS, TOOLS

_MEDIAN_OUTPUT, _OUTPUT_SIGMA = 180, 1.1
_FAILURE_RATE = 0.03


class Request(Struct, frozen=True):
    """What one request is made of. `context` is its input in tokens, `answers` the id of the tool call whose
    result it carries. `calls_tools`: its answer does, unless it fails.
    """

    at: datetime
    person: Person
    client: Client
    model: Model
    context: int
    session: str
    prompt: str = ""
    answers: str = ""
    agent: str = ""
    kind: str = "main"
    is_first: bool = False
    calls_tools: bool = False


class Exchange(Struct, frozen=True):
    """A request with its answer, as events. `calls` are the ids of the tool calls in it."""

    started_at: datetime
    ended_at: datetime
    events: tuple[Event, ...]
    calls: tuple[str, ...] = ()
    output: int = 0


class Exchanges:
    """Makes exchanges by chance."""

    def __init__(self, chance: random.Random) -> None:
        self._random = chance

    def make(self, request: Request) -> Exchange:
        id = self._id(request.at)
        asked: tuple[Event, ...] = (self._started(id, request),)
        if request.prompt:
            asked += (Prompt(id, request.prompt, request.at),)
        if self._random.random() < _FAILURE_RATE:
            end = self._failed(id, request)
            return Exchange(request.at, end.ended_at, (*asked, end))
        return self._answered(id, request, asked)

    def _answered(self, id: str, request: Request, asked: tuple[Event, ...]) -> Exchange:
        chance = self._random
        output = 1 + int(chance.lognormvariate(log(_MEDIAN_OUTPUT), _OUTPUT_SIGMA))
        first_byte = chance.lognormvariate(-0.1, 0.5)
        seconds = first_byte + output / chance.uniform(40, 90)
        at = request.at + timedelta(seconds=seconds)
        response_id = f"{'msg' if request.model.provider == 'anthropic' else 'resp'}_{self.hex(20)}"
        facts: list[Event] = [PromptAnswered(id, response_id)] if request.prompt else []
        if request.kind == "main" and chance.random() < 0.4:
            facts.append(ModelThought(id, 0, 0, chance.choice(THOUGHTS), "thinking", at))
        calls = self._calls(id, response_id, at) if request.calls_tools else []
        model = request.model
        usage = TokenUsage(
            *(id, 0, response_id, model.name, self._usage(request, output), at),
            asked=Asked(model.name, model.provider, model.provider),
        )
        end = self._ended(id, usage, request.at + timedelta(seconds=first_byte), first_byte, seconds)
        events = (*asked, *facts, *calls, usage, end)
        return Exchange(request.at, at, events, tuple(call.tool_call_id for call in calls), output)

    def _started(self, id: str, request: Request) -> Started:
        person, client, provider = request.person, request.client, request.model.provider
        return Started(
            id=id,
            initiator_id=person.id,
            started_at=request.at,
            metadata={"username": person.name},
            provider=provider,
            provider_name=provider,
            model=request.model.name,
            client=client.name,
            client_session_id=request.session,
            user_agent=client.user_agent,
            credential_kind="byok" if person.own_key else "centralized",
            credential_hint="sk-m...7f2a" if person.own_key else "sk-d...e0mo",
            correlating_tool_call_id=request.answers,
            agent_id=request.agent,
            route=client.route,
            streaming=True,
            request_sha256=self.hex(64),
            kind=request.kind,
            groups=person.groups,
        )

    def _ended(
        self, id: str, usage: TokenUsage, first_byte_at: datetime, first_byte: float, seconds: float
    ) -> Ended:
        return Ended(
            id=id,
            ended_at=usage.created_at,
            status_code=200,
            first_byte_at=first_byte_at,
            wire_exact=True,
            response_sha256=self.hex(64),
            usage=usage.usage,
            usages=(usage,),
            attempts=2 if self._random.random() < 0.02 else 1,
            overhead_ms=round(self._random.lognormvariate(0.3, 0.4), 1),
            first_byte_ms=round(1000 * first_byte, 1),
            duration_ms=round(1000 * seconds, 1),
        )

    def _failed(self, id: str, request: Request) -> Ended:
        error_type, status, message = self._random.choice(FAILURES)
        at = request.at + timedelta(seconds=1)
        attempts = 0 if error_type == "limit" else 1
        return Ended(id, at, status, EPOCH, error_type, message, attempts=attempts, duration_ms=1000.0)

    def _calls(self, id: str, response_id: str, at: datetime) -> list[ToolUsage]:
        calls = []
        for position in range(1 + int(self._random.random() < 0.2)):
            (tool,) = self._random.choices([*TOOLS], [*TOOLS.values()])
            input, is_injected = self._random.choice(INPUTS), tool.startswith("search_")
            facts = (True, SERVER_URL, "", self._random.randint(20, 900)) if is_injected else ()
            call_id = f"toolu_{self.hex(20)}z"
            calls.append(ToolUsage(id, 0, position, response_id, call_id, "", tool, input, at, *facts))
        return calls

    def _usage(self, request: Request, output: int) -> Usage:
        """All but the newest of a conversation is read from the cache, and the newest is written to it."""
        if request.kind != "main":
            return Usage(request.context, output)
        new = request.context if request.is_first else min(self._random.randint(50, 5000), request.context)
        fresh = self._random.randint(2, 90)
        return Usage(fresh, output, request.context - new, max(0, new - fresh))

    def hex(self, length: int) -> str:
        """Returns so many random hexadecimal digits."""
        return f"{self._random.getrandbits(4 * length):0{length}x}"

    def _id(self, at: datetime) -> str:
        """Returns a UUID of version 7 of that time."""
        text = f"{int(at.timestamp() * 1000):012x}7{self.hex(3)}8{self.hex(15)}"
        return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"

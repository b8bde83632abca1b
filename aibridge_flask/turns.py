"""The upstream responses of one request: one, and one more for each time that the model calls tools which
the bridge has offered and runs itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from math import inf

from msgspec import Struct

from . import content_coding
from .errors import FollowUpFailed, TooManyRounds, UpstreamCut
from .formats import DecodingFold, error_fold, error_type_of, failure_text, parse_error
from .headers import find, is_event_stream
from .hooks import Hooks, ToolCalled
from .model import Offer, RequestFacts, ToolCall
from .protocols import Fold, Format, Splice, UpstreamResponse
from .records.interception import InterceptionRecord
from .relay import Cleanup
from .tools import ToolBox, ToolOutcome, ToolRun
from .upstream.attempts import Attempted
from .waiting import Client, ReplaceableClient, TaskGroup, run_if_large

_MAX_ERROR_BYTES = 1 << 20
Send = Callable[[bytes, Client], Attempted]


class TurnContext(Struct, frozen=True):
    """What stays the same for all upstream requests of one client request.

    `send` sends the body of a follow-up and watches a client meanwhile. `cleanup` closes what is still open
    at the end. `max_decoded_bytes` bounds a decoded response, `max_rounds` the number of upstream requests.
    """

    format: Format
    facts: RequestFacts
    offer: Offer
    send: Send
    client: Client
    cleanup: Cleanup
    max_decoded_bytes: int
    max_rounds: int


class Turns:
    """`response` is the newest response, whose head has been read; `fold` reads its body."""

    def __init__(
        self,
        context: TurnContext,
        attempted: Attempted,
        record: InterceptionRecord,
        hooks: Hooks,
        toolbox: ToolBox,
    ) -> None:
        """`attempted` has the response to the first request."""
        self._contexts: tuple[TurnContext, ...] = (context,)
        self._record, self._hooks, self._toolbox = record, hooks, toolbox
        self.client = context.client
        self.response, self._status, self._count = attempted.response, attempted.response.status, 1
        self.streamed = _is_event_stream(attempted.response, context.facts)
        record.head_received(self._status, attempted.credential.hint, attempted.credential.mask)
        self._splices = tuple(self._new_splices())
        self._follow_up_client = ReplaceableClient()
        self.fold = self._with_decoding(self._first_fold())
        if not self._splices:
            self._contexts = ()  # no follow-up is possible: free the body, since the response may last long

    @property
    def _context(self) -> TurnContext:
        return self._contexts[0]

    def run_tools(self, calls: Sequence[ToolCall]) -> ToolRun:
        """Starts the calls. Raises TooManyRounds, UpstreamCut."""
        if not calls:  # the response contradicts itself
            raise UpstreamCut
        if self._count >= self._context.max_rounds:
            raise TooManyRounds(self._context.max_rounds)
        self.response.close()  # its connection can carry the next request
        self._record.tools_started()
        tool_run = ToolRun(self._toolbox, calls)
        self._context.cleanup.add(tool_run.stop)
        return tool_run

    def record_outcomes(self, outcomes: Sequence[ToolOutcome]) -> None:
        """Records the results of tool calls."""
        for outcome in outcomes:
            self._record_outcome(outcome)

    def _record_outcome(self, outcome: ToolOutcome) -> None:
        error = failure_text(outcome.result)
        self._record.record_tool_outcome(outcome.call, error, outcome.milliseconds)
        if self._hooks.has_listeners(ToolCalled):
            tool = next(tool for tool in self._context.offer.tools if tool.id == outcome.call.name)
            names = (self._record.id, tool.server, tool.name, outcome.call.id)
            error_type = "tool_error" if error else ""
            self._hooks.emit(ToolCalled(*names, outcome.began, outcome.ended, error_type))

    def send_follow_up(self, outcomes: Sequence[ToolOutcome]) -> TaskGroup[Attempted]:
        """Sends the results of the tools to the model, in parallel to the caller."""
        results = [(outcome.call, outcome.result) for outcome in outcomes]
        size = len(self._context.offer.body)
        body = run_if_large(size, lambda: self._splices[0].follow_up(results))
        self._record.next_turn()
        self._follow_up_client = follow_up_client = ReplaceableClient()

        def send(client: Client) -> Attempted:
            follow_up_client.client = client
            return self._context.send(body, follow_up_client)

        follow_up = TaskGroup(send)
        self._context.cleanup.add(follow_up.stop)
        return follow_up

    def next_response(self, follow_up: TaskGroup[Attempted]) -> None:
        """Replaces `response` and `fold`. Raises UpstreamError."""
        (attempted,) = follow_up.results()
        self._follow_up_client.client = self.client
        self.response, self._count = attempted.response, self._count + 1
        if not self.streamed:
            self._status = attempted.response.status
        self._record.head_received(self._status, attempted.credential.hint, attempted.credential.mask)
        self.fold = self._with_decoding(self._next_fold(attempted.credential.mask))

    def _new_splices(self) -> Iterator[Splice]:
        """Yields a splice if tools were offered and the response can be read."""
        context = self._context
        if context.offer.tools and 200 <= self._status < 300 and self.is_readable:
            new_splice = context.format.splice if self.streamed else context.format.blocking_splice
            yield new_splice(context.offer, context.facts)

    def _first_fold(self) -> Fold:
        if not 200 <= self._status < 300:
            return error_fold(self._status)
        if self._splices:
            return self._splices[0]
        wire_format, facts = self._context.format, self._context.facts
        return wire_format.fold(facts) if self.streamed else wire_format.blocking_fold()

    def _next_fold(self, mask: Callable[[str], str]) -> Fold:
        """Once a stream has begun, a failed response becomes an error event in it."""
        response = self.response
        succeeded = 200 <= response.status < 300
        if self.streamed and not succeeded:
            raise self._follow_up_failed(mask)
        same_mode = _is_event_stream(response, self._context.facts) == self.streamed
        if succeeded and not (same_mode and self.is_readable):
            raise UpstreamCut
        return self._splices[0] if succeeded else error_fold(response.status)

    def _with_decoding(self, fold: Fold) -> Fold:
        """Wraps the fold so that it reads through the content codings of the response."""
        sends_decoded = bool(self._splices) or (self.streamed and not self._context.facts.includes_usage)
        for name in self._codings:
            if content_coding.is_supported(name):
                decoder = content_coding.BoundedDecoder(name, self._context.max_decoded_bytes)
                fold = DecodingFold(fold, decoder.feed, sends_decoded)
        return fold

    @property
    def is_readable(self) -> bool:
        """Whether all content codings of the response are supported."""
        return all(map(content_coding.is_supported, self._codings))

    @property
    def is_coded(self) -> bool:
        """Whether a small piece of the response may decode to a large one."""
        return bool(self._codings)

    @property
    def _codings(self) -> list[str]:
        return content_coding.codings(find(self.response.headers, "content-encoding"))

    def _follow_up_failed(self, mask: Callable[[str], str]) -> FollowUpFailed:
        """Builds an error from the words of the response, as far as they can be read."""
        data, response = bytearray(), self.response
        for piece in response.iter_body(inf):
            data += piece
            if len(data) > _MAX_ERROR_BYTES:
                break
        type, code, message = parse_error(bytes(data))
        message = message or f"the AI provider answered with status {response.status}"
        return FollowUpFailed(type, code, mask(message), error_type_of(response.status))


def _is_event_stream(response: UpstreamResponse, facts: RequestFacts) -> bool:
    """Decides by the media type; a successful response without one has the mode that was asked for."""
    if not 200 <= response.status < 300:
        return False
    is_untold = facts.streaming and not find(response.headers, "content-type")
    return is_untold or is_event_stream(response.headers)

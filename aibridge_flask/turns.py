"""The answers that one request takes: one, and one more for each time that the model asks for tools
which the bridge has offered and runs itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from math import inf

from msgspec import Struct

from . import content_coding
from .errors import FollowUpFailed, TooManyRounds, UpstreamCut
from .formats import DecodingFold, error_fold, error_type_of, parse_error
from .headers import find
from .hooks import Hooks, ToolCalled
from .model import Fold, Format, Offer, RequestFacts, Splice, ToolCall, UpstreamResponse
from .records.journal import Journal
from .relay import Cleanup
from .tools import ToolBox, ToolOutcome, ToolRun
from .upstream.attempts import Attempted
from .waiting import Client, ReplaceableClient, TaskGroup

_EVENT_STREAM = "text/event-stream"
_ERROR_LIMIT = 1 << 20
_NO_RESULT = "the tool answered with an error"


class TurnContext(Struct, frozen=True):
    """How a request is sent, and read: `send` gives the answer to a body while a client is watched; at most
    `limit` bytes of it are inflated; `held` stops what goes on beside; at most `rounds` times it is sent."""

    format: Format
    facts: RequestFacts
    offer: Offer
    send: Callable[[bytes, Client], Attempted]
    client: Client
    cleanup: Cleanup
    limit: int
    rounds: int


class Turns:
    """`answer` is the newest one, whose head is known, and `fold` reads it. Made, it has sent the request;
    raises UpstreamError, ClientGone."""

    def __init__(self, asking: TurnContext, journal: Journal, hooks: Hooks, toolbox: ToolBox) -> None:
        self._kept: tuple[TurnContext, ...] = (asking,)
        self._journal, self._hooks, self._toolbox = journal, hooks, toolbox
        self.client = asking.client
        sent = asking.send(asking.offer.body, asking.client)
        self.response, self._status, self._count = sent.response, sent.response.status, 1
        self.streamed = _is_event_stream(sent.response, asking.facts)
        journal.head_received(self._status, sent.credential.hint, sent.credential.mask)
        self._splice = tuple(self._splices())
        self._lent = ReplaceableClient()
        self.fold = self._read(self._first_fold())
        if not self._splice:
            self._kept = ()  # nothing more is asked; the body may be large, and the answer long

    @property
    def _asking(self) -> TurnContext:
        return self._kept[0]

    def run_tools(self, calls: Sequence[ToolCall]) -> ToolRun:
        """Raises TooManyRounds, UpstreamCut."""
        if not calls:  # an answer whose blocks contradict each other
            raise UpstreamCut
        if self._count >= self._asking.rounds:
            raise TooManyRounds(self._asking.rounds)
        self.response.close()  # its connection can carry the next request
        running = ToolRun(self._toolbox, calls)
        self._asking.cleanup.add(running.stop)
        return running

    def send_follow_up(self, called: Sequence[ToolOutcome]) -> TaskGroup[Attempted]:
        """Gives the model what its tools gave."""
        body = self._splice[0].follow_up([(one.call, one.result) for one in called])
        self._journal.next_turn()
        self._lent = lent = ReplaceableClient()

        def send(client: Client) -> Attempted:
            lent.client = client
            return self._asking.send(body, lent)

        asked = TaskGroup(send)
        self._asking.cleanup.add(asked.stop)
        return asked

    def next_response(self, asked: TaskGroup[Attempted]) -> None:
        """The next answer. Raises UpstreamError."""
        (sent,) = asked.results()
        self._lent.client = self.client
        self.response, self._count = sent.response, self._count + 1
        if not self.streamed:
            self._status = sent.response.status
        self._journal.head_received(self._status, sent.credential.hint, sent.credential.mask)
        self.fold = self._read(self._next_fold(sent.credential.mask))

    def tell(self, called: Sequence[ToolOutcome]) -> None:
        """Records what became of these."""
        for one in called:
            self._tell(one)

    def _tell(self, one: ToolOutcome) -> None:
        error = one.result.error or (_NO_RESULT if one.result.is_error else "")
        self._journal.record_tool_outcome(one.call, error)
        if self._hooks.has_listeners(ToolCalled):
            tool = next(tool for tool in self._asking.offer.tools if tool.id == one.call.name)
            place = (self._journal.id, tool.server, tool.name, one.call.id)
            self._hooks.emit(ToolCalled(*place, one.began, one.ended, "tool_error" if error else ""))

    def _splices(self) -> Iterator[Splice]:
        """What makes one answer of all, where tools were offered and the answer can be read."""
        asking = self._asking
        if asking.offer.tools and 200 <= self._status < 300 and self.readable:
            made = asking.format.splice if self.streamed else asking.format.blocking_splice
            yield made(asking.offer, asking.facts)

    def _first_fold(self) -> Fold:
        if not 200 <= self._status < 300:
            return error_fold(self._status)
        if self._splice:
            return self._splice[0]
        return (
            self._asking.format.fold(self._asking.facts)
            if self.streamed
            else self._asking.format.blocking_fold()
        )

    def _next_fold(self, mask: Callable[[str], str]) -> Fold:
        """Once a stream has begun, an answer that is none becomes an event in it."""
        answer = self.response
        good = 200 <= answer.status < 300
        if self.streamed and not good:
            raise self._refused(mask)
        alike = _is_event_stream(answer, self._asking.facts) == self.streamed
        if good and not (alike and self.readable):
            raise UpstreamCut
        return self._splice[0] if good else error_fold(answer.status)

    def _read(self, fold: Fold) -> Fold:
        give_decoded = bool(self._splice) or (self.streamed and not self._asking.facts.includes_usage)
        for name in self._codings:
            if content_coding.is_known(name):
                inflater = content_coding.BoundedDecoder(name, self._asking.limit)
                fold = DecodingFold(fold, inflater.feed, give_decoded)
        return fold

    @property
    def readable(self) -> bool:
        """Each of the answer's content codings is known."""
        return all(map(content_coding.is_known, self._codings))

    @property
    def _codings(self) -> list[str]:
        """In the order in which they were put on."""
        return content_coding.codings(find(self.response.headers, "content-encoding"))

    def _refused(self, mask: Callable[[str], str]) -> FollowUpFailed:
        """The answer's own words, as far as they can be read."""
        said, answer = bytearray(), self.response
        for piece in answer.iter_body(inf):
            said += piece
            if len(said) > _ERROR_LIMIT:
                break
        kind, code, message = parse_error(bytes(said))
        told = message or f"the AI provider answered with status {answer.status}"
        return FollowUpFailed(kind, code, mask(told), error_type_of(answer.status))


def _is_event_stream(answer: UpstreamResponse, facts: RequestFacts) -> bool:
    """By the media type that the upstream names; a success without one is what was asked for."""
    kind = find(answer.headers, "content-type").lower()
    return 200 <= answer.status < 300 and (kind.startswith(_EVENT_STREAM) if kind else facts.streaming)

"""Requests to an MCP server, and their responses among the messages that the server sends.

https://modelcontextprotocol.io/specification/2025-11-25/basic/transports
"""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from ..errors import ClientDisconnected, ToolError
from ..headers import find
from ..model import HeaderList
from ..upstream.transport import WireResponse
from ..waiting import UNWATCHED
from . import jsonrpc
from .deadline import Deadline
from .endpoint import TIMED_OUT, Endpoint, Refused, StreamCut
from .jsonrpc import Message, error_text
from .reading import UNLIMITED, Bookmark, Budget
from .session import Session

_BACKGROUND_TIMEOUT = 3.0  # seconds, for messages that nobody waits for
_LINGER_SECONDS = 0.02  # servers end a stream right after the response, and its connection can be reused
_METHOD_NOT_FOUND = {"code": -32601, "message": "Method not found"}
_NO_RESPONSE = "the MCP server's answer has no response in it"


class _Question(NamedTuple):
    """A request whose response is read, from the stream of the POST or from later ones."""

    id: int
    session: Session
    deadline: Deadline
    bookmark: Bookmark
    budget: Budget

    @property
    def goes_on(self) -> bool:
        """Whether a stream that ended without the response can be continued."""
        return bool(self.bookmark.last_event_id) and not self.session.is_stateless

    def headers(self, response: WireResponse) -> HeaderList:
        """Returns those for the next stream; the response to a handshake names the session."""
        id = self.session.id or find(response.headers, "mcp-session-id")
        session = Session(self.session.version, id)
        return (*session.headers, ("Last-Event-ID", self.bookmark.last_event_id.decode("latin-1")))


class Conversation:
    """Raises ToolError and, if a deadline watches a client, ClientDisconnected; nothing else."""

    def __init__(self, endpoint: Endpoint, on_change: Callable[[], None]) -> None:
        self._endpoint, self._on_change = endpoint, on_change
        self._ids = itertools.count(1)

    def ask(
        self,
        session: Session,
        method: str,
        params: Mapping[str, Any],
        deadline: Deadline,
        headers: HeaderList = (),
        budget: Budget = UNLIMITED,
    ) -> tuple[Message, HeaderList]:
        """Returns the result of a request, and the headers of the HTTP response.

        It is cancelled when its time is over or the client disconnects.
        """
        question = _Question(next(self._ids), session, deadline.copy(), Bookmark(), budget)
        body = jsonrpc.request(question.id, method, session.params(params))
        resend = method != "tools/call"  # a tool may have had its effect before the connection broke
        sent = self._endpoint.post((*session.headers, *headers), body, question.deadline, resend)
        try:
            with sent as response:
                return self._result(response, question), response.headers
        except (ToolError, ClientDisconnected) as error:
            is_over = deadline.is_over or isinstance(error, ClientDisconnected)
            if is_over and method == "tools/call" and not session.is_stateless:
                reason = {"requestId": question.id, "reason": error.message}
                self._notify(session, jsonrpc.notification("notifications/cancelled", reason))
            raise

    def handle(self, message: Message, session: Session, deadline: Deadline) -> None:
        """Handles a request or notification of the server. Unknown notifications are ignored."""
        if message["method"] == "notifications/tools/list_changed":
            self._on_change()
        elif "id" in message and not session.is_stateless:
            outcome = {"result": {}} if message["method"] == "ping" else {"error": _METHOD_NOT_FOUND}
            response = jsonrpc.encode({"id": message["id"], **outcome})
            with contextlib.suppress(ToolError), self._endpoint.post(session.headers, response, deadline):
                pass

    def _result(self, response: WireResponse, question: _Question) -> Message:
        """Returns the result, which may come in a later stream than that of the POST."""
        deadline, bookmark = question.deadline, question.bookmark
        found = self._find(response, question)
        while not found and question.goes_on and not deadline.is_over:
            deadline.pause(bookmark.pause)
            with self._endpoint.send("GET", question.headers(response), b"", deadline) as rest:
                if rest.status != 200:
                    raise ToolError(f"{_NO_RESPONSE}, and its rest is refused with status {rest.status}")
                found = self._find(rest, question)
        if not found:
            raise ToolError(TIMED_OUT) if deadline.is_over else Refused(_NO_RESPONSE)
        return self._unwrap(found[0])

    def _find(self, response: WireResponse, question: _Question) -> list[Message]:
        """Returns the response if the stream has it. Other messages may precede it."""
        found: list[Message] = []
        try:
            for message in self._endpoint.messages(response, question.bookmark, question.budget):
                if "method" in message:
                    self.handle(message, question.session, question.deadline)
                elif not found and _is_response(message, question.id):
                    found.append(message)
                    question.deadline.shorten(_LINGER_SECONDS)
        except ToolError as error:
            if not found and not (isinstance(error, StreamCut) and question.goes_on):
                raise
        return found

    def _unwrap(self, response: Message) -> Message:
        result = response.get("result")
        if "error" in response:
            raise Refused(self._endpoint.redact(f"the MCP server refused: {error_text(response)}"))
        if not isinstance(result, dict):
            raise Refused("the MCP server's response has no result in it")
        return result

    def _notify(self, session: Session, body: bytes) -> None:
        """Sends a notification in the background."""

        def send() -> None:
            with (
                contextlib.suppress(ToolError),
                self._endpoint.post(session.headers, body, Deadline(UNWATCHED, _BACKGROUND_TIMEOUT)),
            ):
                pass

        threading.Thread(target=send, daemon=True).start()


def _is_response(message: Message, id: int) -> bool:
    """A server that could not read the id responds with null."""
    return message.get("id") == id or (message.get("id") is None and "error" in message)

"""What a format has to write and read for a dialogue on tools."""

from __future__ import annotations

import gzip
import json
from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any, ClassVar

from tests.support.sse import read_events
from tests.support.tool_dialects.dialogue import GATEWAY_TOKEN, PROMPT, Answer, Call, Json, View
from tests.support.upstream import Step, Upstream, event_stream, http_response


class ToolDialect(ABC):
    """A format. It has no state: the class variables are its routes, provider and marks."""

    name: ClassVar[str]
    provider: ClassVar[str]
    path: ClassVar[str]
    copilot_path: ClassVar[str]
    model: ClassVar[str]
    key_header: ClassVar[str]
    key_prefix: ClassVar[str] = ""
    central_key: ClassVar[str]
    base_path: ClassVar[str] = ""
    """The path that a provider's `base_url` ends with."""
    keepalive: ClassVar[bytes]
    keeps_first_id: ClassVar[bool] = True
    """Whether the client sees the first answer's id, not the last one's."""
    empty_arguments: ClassVar[str] = ""
    """What the upstream gets back of a call whose arguments are an empty text."""
    without_tools: ClassVar[tuple[Json, ...]]
    """Changes to a request that keep the bridge from offering tools."""
    end_mark: ClassVar[bytes]
    """Bytes in the event that ends an answer, or its first choice."""
    cuts: ClassVar[tuple[tuple[str, bytes], ...]]
    """Names and bytes of the events of ENDS before which a stream of it may break off."""

    def __str__(self) -> str:
        return self.name

    @abstractmethod
    def ask(self, prompt: str = PROMPT) -> Json:
        """A request without the members for streaming."""

    def stream_members(self) -> Json:
        return {"stream": True}

    def request(self, streaming: bool, prompt: str = PROMPT, **changes: object) -> bytes:
        tree = {**self.ask(prompt), **(self.stream_members() if streaming else {}), **changes}
        return json.dumps(tree).encode()

    @abstractmethod
    def to_json(self, http_response: Answer) -> Json:
        """The answer as a blocking response holds it."""

    def whole(self, http_response: Answer) -> bytes:
        return json.dumps(self.to_json(http_response)).encode()

    @abstractmethod
    def stream(self, http_response: Answer) -> bytes: ...

    def stream_without_end(self, http_response: Answer) -> bytes:
        """The events up to those that end the answer."""
        return self.stream_before(http_response, self.end_mark)

    def stream_before(self, http_response: Answer, mark: bytes) -> bytes:
        """The events before the one that first holds `mark`."""
        stream = self.stream(http_response)
        return stream[: stream.rindex(b"\n\n", 0, stream.index(mark)) + 2]

    def steps(self, answer: Answer, streaming: bool, size: int = 11, *headers: str) -> list[Step]:
        """The upstream's response; a stream comes in pieces of `size` bytes (0: one)."""
        if streaming:
            return list(event_stream(self.stream(answer), size, *headers))
        return [http_response(200, self.whole(answer), *headers)]

    def compressed_steps(self, answer: Answer, streaming: bool) -> list[Step]:
        """As `steps`, with gzip."""
        coding = "Content-Encoding: gzip"
        if streaming:
            return list(event_stream(gzip.compress(self.stream(answer)), 9, coding))
        return [http_response(200, gzip.compress(self.whole(answer)), coding)]

    def enqueue(self, upstream: Upstream, streaming: bool, *answers: Answer) -> None:
        """The upstream gives these answers to the next requests."""
        for answer in answers:
            upstream.enqueue(*self.steps(answer, streaming))

    def recorded_arguments(self, call: Call, streaming: bool) -> str:
        """A call's arguments in its record."""
        return call.arguments

    def item_id(self, call: Call) -> str:
        return ""

    @abstractmethod
    def stream_of_call(self, pieces: list[str]) -> bytes:
        """An answer that calls `add` as `call_1`; the arguments' text comes in these pieces."""

    # What the upstream gets

    @abstractmethod
    def tool_names(self, request: Json) -> list[str]: ...

    @abstractmethod
    def prompt(self, request: Json) -> str: ...

    @abstractmethod
    def follow_up(self, request: Json, http_response: Answer, results: Iterable[tuple[str, str]]) -> Json:
        """The request after `request`: the answer is added to it, and the calls' ids and results."""

    @abstractmethod
    def tool_results(self, request: Json) -> list[tuple[str, str]]:
        """The ids of the calls in a dialogue, and the texts of their results."""

    @abstractmethod
    def sent_arguments(self, request: Json) -> object:
        """The arguments of the only call in a dialogue, as the upstream gets them back."""

    def arguments_to_send(self, pieces: list[str], value: object) -> object:
        """What `sent_arguments` should be of a call whose arguments came so: their text, or their value."""
        text = "".join(pieces).encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")
        return text or self.empty_arguments

    # What the client gets

    @abstractmethod
    def view(self, message: Json) -> View: ...

    def view_of(self, http_response: Answer) -> View:
        """What the client should see of an answer with nothing in it to hide."""
        return self.view(self.to_json(http_response))

    @abstractmethod
    def join(self, events: list[Json]) -> Json:
        """A stream's events put together, as a blocking response would hold them."""

    def read(self, body: bytes, streaming: bool) -> View:
        return self.view(self.join(read_events(body)) if streaming else json.loads(body))

    @abstractmethod
    def has_last_event(self, stream: bytes) -> bool: ...

    @abstractmethod
    def error(self, type: str, code: str, message: str, streaming: bool) -> Json:
        """The members that an error has in a stream, or in a blocking response."""

    def read_error(self, body: bytes, streaming: bool) -> Json:
        """The error's members: of the last event, or of the blocking response."""
        message = read_events(body)[-1] if streaming else json.loads(body)
        error = message["error"]
        assert isinstance(error, dict)
        return error

    def error_body(self, type: str, code: str, message: str) -> bytes:
        return json.dumps({"error": self.error(type, code, message, streaming=False)}).encode()

    @abstractmethod
    def error_event(self, type: str, message: str) -> bytes:
        """An upstream's error in its stream."""

    # The provider's own package

    @abstractmethod
    def use_package(self, url: str, streaming: bool, **options: object) -> Json:
        """What the package makes of the answer to a request."""

    @abstractmethod
    async def use_package_without_blocking(self, url: str) -> str:
        """The text that the package reads from a stream."""


class OpenAIDialect(ToolDialect):
    """What both of OpenAI's formats share."""

    provider = "openai"
    model = "gpt-test-1"
    key_header = "authorization"
    key_prefix = "Bearer "
    central_key = "sk-oai-central-0123456789"
    base_path = "/v1"
    keepalive = b": keep-alive\n\n"

    def error(self, type: str, code: str, message: str, streaming: bool) -> Json:
        return {"message": message, "type": type, "param": None, "code": code}


def package_options(url: str, base_path: str) -> dict[str, Any]:
    return {"base_url": url + base_path, "api_key": GATEWAY_TOKEN, "max_retries": 0}


def without_nulls(usage: Json) -> Json:
    return {key: value for key, value in usage.items() if value is not None}

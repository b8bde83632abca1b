"""Anthropic's messages."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable

import anthropic

from tests.support import claude
from tests.support.sse import read_events
from tests.support.tool_dialects.dialect import ToolDialect, package_options, without_nulls
from tests.support.tool_dialects.dialogue import ADD, PROMPT, Answer, Call, Json, View


class MessagesDialect(ToolDialect):
    name = "messages"
    provider = "anthropic"
    path = "/anthropic/v1/messages"
    copilot_path = "/copilot/v1/messages"
    model = claude.MODEL
    key_header = "x-api-key"
    central_key = "sk-ant-central-0123456789"
    keepalive = b'event: ping\ndata: {"type": "ping"}\n\n'
    without_tools = ({"tool_choice": {"type": "none"}}, {"model": "claude-test-haiku-1"})
    end_mark = b"event: message_delta"
    cuts = (("its text", b'"It'), ("its end", end_mark), ("its last event", b"event: message_stop"))

    def ask(self, prompt: str = PROMPT) -> Json:
        return {"model": self.model, "max_tokens": 99, "messages": [{"role": "user", "content": prompt}]}

    def to_json(self, answer: Answer) -> Json:
        thoughts = [claude.thought(answer.thought, "c2ln")] if answer.thought else []
        texts = [claude.text(answer.text)] if answer.text else []
        calls = [
            {"type": "tool_use", "id": call.id, "name": call.name, "input": json.loads(call.arguments)}
            for call in answer.calls
        ]
        stop = "max_tokens" if answer.is_cut else "tool_use" if calls else "end_turn"
        usage = {
            "input_tokens": answer.input_tokens,
            "cache_read_input_tokens": answer.cached_tokens,
            "output_tokens": answer.output_tokens,
        }
        return claude.message(answer.id, *thoughts, *texts, *calls, stop=stop, **usage)

    def stream(self, answer: Answer) -> bytes:
        return claude.stream(self.to_json(answer))

    def recorded_arguments(self, call: Call, streaming: bool) -> str:
        """A blocking answer holds JSON values, not a text."""
        return json.dumps(json.loads(call.arguments), separators=None if streaming else (",", ":"))

    def stream_of_call(self, pieces: list[str]) -> bytes:
        call = Answer("answer_1", (Call("call_1", ADD),))
        delta = '{{"type":"content_block_delta","index":0,"delta":{{"type":"input_json_delta","partial_json":{}}}}}'
        deltas = [
            f"event: content_block_delta\ndata: {delta.format(json.dumps(piece))}\n\n" for piece in pieces
        ]
        before, after = re.split(rb"(?:event: content_block_delta\n.*\n\n)+", self.stream(call))
        return before + "".join(deltas).encode() + after

    def sent_arguments(self, request: Json) -> object:
        (block,) = request["messages"][1]["content"]
        return block["input"]

    def arguments_to_send(self, pieces: list[str], value: object) -> object:
        return value

    def tool_names(self, request: Json) -> list[str]:
        return [tool["name"] for tool in request["tools"]]

    def prompt(self, request: Json) -> str:
        return str(request["messages"][0]["content"])

    def follow_up(self, request: Json, answer: Answer, results: Iterable[tuple[str, str]]) -> Json:
        blocks = [
            {"type": "tool_result", "tool_use_id": id, "content": [claude.text(text)]} for id, text in results
        ]
        turns = [
            {"role": "assistant", "content": self.to_json(answer)["content"]},
            {"role": "user", "content": blocks},
        ]
        return {**request, "messages": [*request["messages"], *turns]}

    def tool_results(self, request: Json) -> list[tuple[str, str]]:
        """The format marks the failed ones."""
        blocks = [block for message in request["messages"][2::2] for block in message["content"]]
        results = [(block["tool_use_id"], part["text"]) for block in blocks for part in block["content"]]
        assert [id for id, _ in results] == [block["tool_use_id"] for block in blocks]
        marks = [block.get("is_error", False) for block in blocks]
        assert marks == [text.startswith("Error: ") for _, text in results]
        return results

    def view(self, message: Json) -> View:
        blocks: dict[str, list[Json]] = {"text": [], "thinking": [], "tool_use": []}
        for block in message["content"]:
            blocks[block["type"]].append(block)
        return View(
            id=message["id"],
            text="".join(block["text"] for block in blocks["text"]),
            thoughts="".join(block["thinking"] for block in blocks["thinking"]),
            calls=[(block["id"], block["name"], json.dumps(block["input"])) for block in blocks["tool_use"]],
            finish=message["stop_reason"],
            usage=without_nulls(message["usage"]),
        )

    def join(self, events: list[Json]) -> Json:
        message: Json = next(event["message"] for event in events if event["type"] == "message_start")
        parts: list[list[Json]] = []
        for event in events:
            if event["type"] == "content_block_start":
                message["content"].append(event["content_block"])
                parts.append([])
            elif event["type"] == "content_block_delta":
                parts[event["index"]].append(event["delta"])
            elif event["type"] == "message_delta":
                message = {**message, **event["delta"], "usage": {**message["usage"], **event["usage"]}}
        for block, deltas in zip(message["content"], parts, strict=True):
            _apply_deltas(block, deltas)
        return message

    def has_last_event(self, stream: bytes) -> bool:
        return bool(read_events(stream)[-1]["type"] == "message_stop")

    def error(self, type: str, code: str, message: str, streaming: bool) -> Json:
        return {"type": type, "message": message}

    def read_error(self, body: bytes, streaming: bool) -> Json:
        message = read_events(body)[-1] if streaming else json.loads(body)
        assert message["type"] == "error"
        return super().read_error(body, streaming)

    def error_body(self, type: str, code: str, message: str) -> bytes:
        return json.dumps({"type": "error", "error": {"type": type, "message": message}}).encode()

    def error_event(self, type: str, message: str) -> bytes:
        return b"event: error\ndata: " + self.error_body(type, "", message) + b"\n\n"

    def use_package(self, url: str, streaming: bool, **options: object) -> Json:
        with anthropic.Anthropic(**package_options(url, "/anthropic")) as client:
            if not streaming:
                return client.messages.create(**self.ask(), **options).to_dict()
            with client.messages.stream(**self.ask(), **options) as stream:
                return stream.get_final_message().to_dict()

    async def use_package_without_blocking(self, url: str) -> str:
        async with anthropic.AsyncAnthropic(**package_options(url, "/anthropic")) as client:
            stream = await client.messages.create(**self.ask(), stream=True)
            deltas = [event.delta async for event in stream if event.type == "content_block_delta"]
            return "".join(delta.text for delta in deltas if delta.type == "text_delta")


def _apply_deltas(block: Json, deltas: list[Json]) -> None:
    """A tool's input is the JSON that the deltas make."""
    for delta in deltas:
        for key in ("text", "thinking", "signature"):
            block[key] = block.get(key, "") + delta[key] if key in delta else block.get(key)
    if block["type"] == "tool_use":
        block["input"] = json.loads("".join(delta["partial_json"] for delta in deltas) or "{}")

"""What the scripted providers answer: one message, in the shape of each API, streamed or whole."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from msgspec import Struct

Json = dict[str, Any]
_WORDS = "This is a scripted answer of AI Bridge's demonstration: no model has read your words."
_TITLE = "A session of the demonstration"


class Answer(Struct, frozen=True):
    """A model's message. `tool` is the name of a tool that it calls with `input`, "" for none."""

    id: str
    model: str
    text: str
    tool: str = ""
    input: str = "{}"
    thought: str = ""
    fresh: int = 0
    cached: int = 0
    written: int = 0
    output: int = 0

    @property
    def words(self) -> list[str]:
        return [f"{word} " for word in self.text.split(" ")]

    @property
    def call_id(self) -> str:
        return f"call_{self.id}"


def text_for(body: Mapping[str, Any], asked: str) -> str:
    """Returns what to answer to a body whose last text of the user is `asked`."""
    schema = (body.get("output_config") or {}).get("format", {}).get("schema", {})
    if list(schema.get("properties", {})) == ["title"]:
        return json.dumps({"title": _TITLE})
    quoted = f' You wrote: "{asked[:200]}".' if asked else " The tool's result has arrived."
    return f"{_WORDS}{quoted} Everything else is real: the dashboard shows this request."


def _event(members: Json, name: str = "") -> bytes:
    data = json.dumps(members, ensure_ascii=False).encode()
    return (b"event: %s\n" % name.encode() if name else b"") + b"data: %s\n\n" % data


class Messages:
    """Anthropic's Messages."""

    @staticmethod
    def whole(answer: Answer) -> Json:
        content: list[Json] = []
        if answer.thought:
            content.append({"type": "thinking", "thinking": answer.thought, "signature": "ZGVtbw=="})
        content.append({"type": "text", "text": answer.text})
        if answer.tool:
            use = {"id": f"toolu_{answer.id}", "name": answer.tool, "input": json.loads(answer.input)}
            content.append({"type": "tool_use", **use})
        return {
            "id": f"msg_{answer.id}",
            "type": "message",
            "role": "assistant",
            "model": answer.model,
            "content": content,
            "stop_reason": "tool_use" if answer.tool else "end_turn",
            "stop_sequence": None,
            "usage": {
                "input_tokens": answer.fresh,
                "cache_read_input_tokens": answer.cached,
                "cache_creation_input_tokens": answer.written,
                "output_tokens": answer.output,
            },
        }

    @classmethod
    def events(cls, answer: Answer) -> Iterator[bytes]:
        message = cls.whole(answer)
        usage = {**message["usage"], "output_tokens": 1}
        start = {**message, "content": [], "stop_reason": None, "usage": usage}
        yield _event({"type": "message_start", "message": start}, "message_start")
        for index, block in enumerate(message["content"]):
            yield from cls._block(index, block, answer)
        delta = {"stop_reason": message["stop_reason"], "stop_sequence": None}
        end = {"type": "message_delta", "delta": delta, "usage": {"output_tokens": answer.output}}
        yield _event(end, "message_delta")
        yield _event({"type": "message_stop"}, "message_stop")

    @staticmethod
    def _block(index: int, block: Json, answer: Answer) -> Iterator[bytes]:
        empty = {"thinking": "", "text": "", "input": {}, "signature": ""}
        start = {name: empty.get(name, value) for name, value in block.items()}
        deltas: list[Json]
        if block["type"] == "text":
            deltas = [{"type": "text_delta", "text": word} for word in answer.words]
        elif block["type"] == "thinking":
            deltas = [
                {"type": "thinking_delta", "thinking": block["thinking"]},
                {"type": "signature_delta", "signature": block["signature"]},
            ]
        else:
            deltas = [{"type": "input_json_delta", "partial_json": answer.input}]
        about = {"index": index}
        yield _event({"type": "content_block_start", **about, "content_block": start}, "content_block_start")
        for delta in deltas:
            yield _event({"type": "content_block_delta", **about, "delta": delta}, "content_block_delta")
        yield _event({"type": "content_block_stop", **about}, "content_block_stop")


class Chat:
    """OpenAI's Chat Completions."""

    @staticmethod
    def _usage(answer: Answer) -> Json:
        prompt = answer.fresh + answer.cached + answer.written
        return {
            "prompt_tokens": prompt,
            "completion_tokens": answer.output,
            "total_tokens": prompt + answer.output,
            "prompt_tokens_details": {"cached_tokens": answer.cached},
        }

    @staticmethod
    def _calls(answer: Answer) -> list[Json]:
        function = {"name": answer.tool, "arguments": answer.input}
        return [{"id": answer.call_id, "type": "function", "function": function}] if answer.tool else []

    @classmethod
    def whole(cls, answer: Answer) -> Json:
        calls = {"tool_calls": cls._calls(answer)} if answer.tool else {}
        message = {"role": "assistant", "content": answer.text, **calls}
        choice = {"index": 0, "message": message, "finish_reason": "tool_calls" if calls else "stop"}
        return {**cls._head(answer, "chat.completion"), "choices": [choice], "usage": cls._usage(answer)}

    @classmethod
    def events(cls, answer: Answer) -> Iterator[bytes]:
        head = cls._head(answer, "chat.completion.chunk")

        def chunk(delta: Json, finish: str | None = None) -> bytes:
            return _event({**head, "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]})

        yield chunk({"role": "assistant", "content": ""})
        yield from (chunk({"content": word}) for word in answer.words)
        for index, call in enumerate(cls._calls(answer)):
            yield chunk({"tool_calls": [{"index": index, **call}]})
        yield chunk({}, "tool_calls" if answer.tool else "stop")
        yield _event({**head, "choices": [], "usage": cls._usage(answer)})
        yield b"data: [DONE]\n\n"

    @staticmethod
    def _head(answer: Answer, kind: str) -> Json:
        return {"id": f"chatcmpl-{answer.id}", "object": kind, "created": 0, "model": answer.model}


class Responses:
    """OpenAI's Responses."""

    @classmethod
    def whole(cls, answer: Answer) -> Json:
        prompt = answer.fresh + answer.cached + answer.written
        usage = {
            "input_tokens": prompt,
            "input_tokens_details": {"cached_tokens": answer.cached},
            "output_tokens": answer.output,
            "output_tokens_details": {"reasoning_tokens": answer.output // 4},
            "total_tokens": prompt + answer.output,
        }
        return {**cls._head(answer, "completed"), "output": cls._items(answer), "usage": usage}

    @staticmethod
    def _head(answer: Answer, status: str) -> Json:
        id = f"resp_{answer.id}"
        return {"id": id, "object": "response", "created_at": 0, "status": status, "model": answer.model}

    @staticmethod
    def _items(answer: Answer) -> list[Json]:
        part = {"type": "output_text", "text": answer.text, "annotations": []}
        facts = {"status": "completed", "role": "assistant", "content": [part]}
        items: list[Json] = [{"type": "message", "id": f"msg_{answer.id}", **facts}]
        if answer.tool:
            call = {"call_id": answer.call_id, "name": answer.tool, "arguments": answer.input}
            items.append({"type": "function_call", "id": f"fc_{answer.id}", "status": "completed", **call})
        return items

    @classmethod
    def events(cls, answer: Answer) -> Iterator[bytes]:
        for number, members in enumerate(cls._members(answer)):
            yield _event({**members, "sequence_number": number}, members["type"])

    @classmethod
    def _members(cls, answer: Answer) -> Iterator[Json]:
        begun = {**cls._head(answer, "in_progress"), "output": [], "usage": None}
        yield {"type": "response.created", "response": begun}
        yield {"type": "response.in_progress", "response": begun}
        for index, item in enumerate(cls._items(answer)):
            about = {"output_index": index}
            empty = {"content": [], "arguments": "", "status": "in_progress"}
            opened = {name: empty.get(name, value) for name, value in item.items()}
            yield {"type": "response.output_item.added", **about, "item": opened}
            yield from cls._message(answer, item, about) if index == 0 else cls._call(answer, item, about)
            yield {"type": "response.output_item.done", **about, "item": item}
        yield {"type": "response.completed", "response": cls.whole(answer)}

    @staticmethod
    def _message(answer: Answer, item: Json, about: Json) -> Iterator[Json]:
        (part,) = item["content"]
        place = {**about, "item_id": item["id"], "content_index": 0}
        yield {"type": "response.content_part.added", **place, "part": {**part, "text": ""}}
        for word in answer.words:
            yield {"type": "response.output_text.delta", **place, "delta": word}
        yield {"type": "response.output_text.done", **place, "text": answer.text}
        yield {"type": "response.content_part.done", **place, "part": part}

    @staticmethod
    def _call(answer: Answer, item: Json, about: Json) -> Iterator[Json]:
        place = {**about, "item_id": item["id"]}
        name = "response.function_call_arguments"
        yield {"type": f"{name}.delta", **place, "delta": answer.input}
        yield {"type": f"{name}.done", **place, "arguments": answer.input}


API = type[Messages] | type[Chat] | type[Responses]

"""OpenAI's Responses."""

from __future__ import annotations

import json
from collections.abc import Iterable

import openai

from tests.support import responses
from tests.support.sse import read_events
from tests.support.tool_dialects.dialect import OpenAIDialect, package_options, without_nulls
from tests.support.tool_dialects.dialogue import ADD, PROMPT, Answer, Call, Json, View


class ResponsesDialect(OpenAIDialect):
    name = "responses"
    path = "/openai/v1/responses"
    copilot_path = "/copilot/responses"
    model = "gpt-test-2"
    keeps_first_id = False
    without_tools = ({"tool_choice": "none"}, {"prompt": {"id": "pmpt_1"}}, {"input": 7})
    end_mark = b"event: response.completed"
    cuts = (("its text", b'"It'), ("its end", end_mark))

    def ask(self, prompt: str = PROMPT) -> Json:
        return {"model": self.model, "input": prompt}

    def to_json(self, answer: Answer) -> Json:
        thoughts = [responses.thought(f"rs_{answer.id}", answer.thought)] if answer.thought else []
        texts = [responses.text(f"msg_{answer.id}", answer.text)] if answer.text else []
        calls = [
            responses.call(call.id.removeprefix("call_"), call.name, call.arguments) for call in answer.calls
        ]
        cut = {"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}}
        usage = {
            "input_tokens": answer.input_tokens + answer.cached_tokens,
            "input_tokens_details": {"cached_tokens": answer.cached_tokens},
            "output_tokens": answer.output_tokens,
            "total_tokens": answer.input_tokens + answer.cached_tokens + answer.output_tokens,
        }
        return responses.response(
            answer.id, *thoughts, *texts, *calls, usage=usage, **(cut if answer.is_cut else {})
        )

    def stream(self, answer: Answer) -> bytes:
        return responses.stream(self.to_json(answer))

    def stream_of_call(self, pieces: list[str]) -> bytes:
        item = responses.call("1", ADD, "".join(pieces))
        events = []
        for event in responses.events(responses.response("answer_1", item)):
            is_delta = event["type"] == "response.function_call_arguments.delta"
            events += [{**event, "delta": piece} for piece in pieces] if is_delta else [event]
        return b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in events)

    def sent_arguments(self, request: Json) -> object:
        (arguments,) = [item["arguments"] for item in request["input"] if item["type"] == "function_call"]
        return arguments

    def item_id(self, call: Call) -> str:
        return f"fc_{call.id.removeprefix('call_')}"

    def tool_names(self, request: Json) -> list[str]:
        assert request["parallel_tool_calls"] is False
        return [tool["name"] for tool in request["tools"]]

    def prompt(self, request: Json) -> str:
        items = request["input"]
        return str(items if isinstance(items, str) else items[0]["content"])

    def follow_up(self, request: Json, answer: Answer, results: Iterable[tuple[str, str]]) -> Json:
        items = request["input"]
        if isinstance(items, str):
            items = [{"type": "message", "role": "user", "content": items}]
        outputs = [{"type": "function_call_output", "call_id": id, "output": text} for id, text in results]
        return {**request, "input": [*items, *self.to_json(answer)["output"], *outputs]}

    def tool_results(self, request: Json) -> list[tuple[str, str]]:
        if isinstance(request["input"], str):
            return []
        outputs = [item for item in request["input"] if item["type"] == "function_call_output"]
        return [(item["call_id"], item["output"]) for item in outputs]

    def view(self, message: Json) -> View:
        items: dict[str, list[Json]] = {"message": [], "reasoning": [], "function_call": []}
        for item in message["output"]:
            items[item["type"]].append(item)
        return View(
            id=message["id"],
            text="".join(part["text"] for item in items["message"] for part in item["content"]),
            thoughts="".join(part["text"] for item in items["reasoning"] for part in item["summary"]),
            calls=[(item["call_id"], item["name"], item["arguments"]) for item in items["function_call"]],
            finish=message["status"],
            usage=without_nulls(message["usage"]),
        )

    def join(self, events: list[Json]) -> Json:
        """The last event holds the whole response; the others lead up to it."""
        assert [event["sequence_number"] for event in events] == list(range(len(events)))
        response: Json = events[-1]["response"]
        done = [event["item"] for event in events if event["type"] == "response.output_item.done"]
        assert done == response["output"]
        return response

    def has_last_event(self, stream: bytes) -> bool:
        return bool(read_events(stream)[-1]["type"] == "response.completed")

    def error(self, type: str, code: str, message: str, streaming: bool) -> Json:
        """A stream's error is an event of its own type."""
        if streaming:
            return {"type": "error", "code": code, "message": message, "param": None}
        return super().error(type, code, message, streaming)

    def read_error(self, body: bytes, streaming: bool) -> Json:
        if not streaming:
            return super().read_error(body, streaming)
        event = read_events(body)[-1]
        return {key: event[key] for key in event if key != "sequence_number"}

    def error_event(self, type: str, message: str) -> bytes:
        return responses.event({"type": "error", "code": type, "message": message, "param": None})

    def use_package(self, url: str, streaming: bool, **options: object) -> Json:
        with openai.OpenAI(**package_options(url, "/openai/v1")) as client:
            if not streaming:
                return client.responses.create(**self.ask(), **options).to_dict()
            *_, last = client.responses.create(**self.ask(), **options, stream=True)
            return last.response.to_dict()

    async def use_package_without_blocking(self, url: str) -> str:
        async with openai.AsyncOpenAI(**package_options(url, "/openai/v1")) as client:
            stream = await client.responses.create(**self.ask(), stream=True)
            events = [event async for event in stream]
            return "".join(event.delta for event in events if event.type == "response.output_text.delta")

"""OpenAI's chat completions."""

from __future__ import annotations

from collections.abc import Iterable

import openai

from tests.support import chat
from tests.support.tool_dialects.dialect import OpenAIDialect, package_options, without_nulls
from tests.support.tool_dialects.dialogue import ADD, PROMPT, Answer, Json, View


class ChatDialect(OpenAIDialect):
    name = "chat"
    path = "/openai/v1/chat/completions"
    empty_arguments = "{}"
    copilot_path = "/copilot/chat/completions"
    without_tools = ({"tool_choice": "none"}, {"n": 2}, {"functions": [{"name": "old"}]})
    end_mark = b'"finish_reason":"'
    cuts = (("its text", b'"It'), ("its end", end_mark), ("its last event", b"[DONE]"))

    def ask(self, prompt: str = PROMPT) -> Json:
        return {"model": self.model, "messages": [{"role": "user", "content": prompt}]}

    def stream_members(self) -> Json:
        return {"stream": True, "stream_options": {"include_usage": True}}

    def to_json(self, answer: Answer) -> Json:
        usage = {
            **chat.token_counts(answer.input_tokens + answer.cached_tokens, answer.output_tokens),
            "prompt_tokens_details": {"cached_tokens": answer.cached_tokens},
        }
        completion = chat.completion(
            answer.id, _chat_message(answer), finish="length" if answer.is_cut else ""
        )
        return {**completion, "usage": usage}

    def stream(self, answer: Answer) -> bytes:
        return chat.stream(self.to_json(answer))

    def tool_names(self, request: Json) -> list[str]:
        assert request["parallel_tool_calls"] is False
        return [tool["function"]["name"] for tool in request["tools"]]

    def prompt(self, request: Json) -> str:
        return str(request["messages"][0]["content"])

    def follow_up(self, request: Json, answer: Answer, results: Iterable[tuple[str, str]]) -> Json:
        outputs = [{"role": "tool", "tool_call_id": id, "content": text} for id, text in results]
        return {**request, "messages": [*request["messages"], _chat_message(answer), *outputs]}

    def tool_results(self, request: Json) -> list[tuple[str, str]]:
        messages = [message for message in request["messages"] if message["role"] == "tool"]
        return [(message["tool_call_id"], message["content"]) for message in messages]

    def view(self, message: Json) -> View:
        (choice,) = message["choices"]
        content = choice["message"]
        assert content["role"] == "assistant"
        calls = [(call["id"], call["function"]) for call in content.get("tool_calls") or []]
        return View(
            id=message["id"],
            text=content["content"] or "",
            thoughts=content.get("reasoning_content", ""),
            calls=[(id, function["name"], function["arguments"]) for id, function in calls],
            finish=choice["finish_reason"],
            usage=without_nulls(message["usage"]),
        )

    def join(self, events: list[Json]) -> Json:
        assert len({event["id"] for event in events}) == 1
        (usage,) = [event["usage"] for event in events if event["usage"]]
        message: Json = {"content": "", "reasoning_content": "", "tool_calls": {}}
        finish = None
        for choice in (choice for event in events for choice in event["choices"]):
            finish = choice["finish_reason"] or finish
            _add_chat_delta(message, choice["delta"])
        message["tool_calls"] = list(message["tool_calls"].values())
        choice = {"message": message, "finish_reason": finish}
        return {"id": events[0]["id"], "choices": [choice], "usage": usage}

    def has_last_event(self, stream: bytes) -> bool:
        return stream.endswith(chat.DONE)

    def stream_of_call(self, pieces: list[str]) -> bytes:
        call = {"index": 0, "id": "call_1", "type": "function", "function": {"name": ADD, "arguments": ""}}
        begin = chat.chunk("answer_1", {"tool_calls": [call]})
        rest = b"".join(chat.more_arguments("answer_1", 0, piece) for piece in pieces)
        return begin + rest + chat.chunk("answer_1", {}, "tool_calls") + chat.DONE

    def sent_arguments(self, request: Json) -> object:
        (call,) = request["messages"][1]["tool_calls"]
        return call["function"]["arguments"]

    def error_event(self, type: str, message: str) -> bytes:
        return chat.event(error={"message": message, "type": type})

    def use_package(self, url: str, streaming: bool, **options: object) -> Json:
        with openai.OpenAI(**package_options(url, "/openai/v1")) as client:
            if not streaming:
                return client.chat.completions.create(**self.ask(), **options).to_dict()
            usage = {"stream_options": {"include_usage": True}}
            with client.chat.completions.stream(**self.ask(), **usage, **options) as stream:
                for _ in stream:
                    pass
                return stream.get_final_completion().to_dict()

    async def use_package_without_blocking(self, url: str) -> str:
        async with openai.AsyncOpenAI(**package_options(url, "/openai/v1")) as client:
            stream = await client.chat.completions.create(**self.ask(), stream=True)
            return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])


def _chat_message(answer: Answer) -> Json:
    calls = [(call.id, call.name, call.arguments) for call in answer.calls]
    thoughts = {"reasoning_content": answer.thought} if answer.thought else {}
    return chat.message(answer.text or None, *calls, **thoughts)


def _add_chat_delta(message: Json, delta: Json) -> None:
    message.update({"role": delta["role"]} if "role" in delta else {})
    for key in ("content", "reasoning_content"):
        message[key] += delta.get(key) or ""
    for piece in delta.get("tool_calls", []):
        call = message["tool_calls"].setdefault(piece["index"], {"function": {"arguments": ""}})
        arguments = call["function"]["arguments"] + piece["function"]["arguments"]
        call["function"] = {**call["function"], **piece["function"], "arguments": arguments}
        call.update({"id": piece["id"]} if "id" in piece else {})

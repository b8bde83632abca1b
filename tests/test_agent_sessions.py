"""Sessions as real clients make them: what they ask beside the conversation, subagents, compaction."""

from __future__ import annotations

import json
from typing import Any
from uuid import uuid4

from tests.support import chat, claude, responses
from tests.support.server import Server
from tests.support.upstream import Upstream, event_stream

REMINDER = {"type": "text", "text": "<system-reminder>Today is a day.</system-reminder>"}
ENVIRONMENT = {"role": "system", "content": [{"type": "text", "text": "# Environment\nDebian"}]}
TOOLS = [{"name": "Read", "description": "Reads a file", "input_schema": {"type": "object"}}]
TITLE_FORMAT = {
    "type": "json_schema",
    "schema": {"type": "object", "properties": {"title": {"type": "string"}}},
}
COMPACT = "CRITICAL: Respond with TEXT ONLY. Do NOT call any tools.\n\nSummarise the conversation."
Json = dict[str, Any]


class ClaudeCode:
    """A session of Claude Code 2.1.330, whose requests these are in all that is read of them."""

    def __init__(self, server: Server, upstream: Upstream) -> None:
        self.server, self.upstream, self.session = server, upstream, str(uuid4())

    def ask(self, answer: Json, *messages: Json, agent: str = "", parent: str = "", **members: Any) -> str:
        body = {
            "model": claude.MODEL,
            "messages": [*messages],
            "tools": TOOLS,
            "stream": True,
            "metadata": {"user_id": json.dumps({"device_id": "d", "session_id": self.session})},
            **members,
        }
        headers = {
            "User-Agent": "claude-cli/2.1.330 (external, cli)",
            "X-Claude-Code-Session-Id": self.session,
            **({"X-Claude-Code-Agent-Id": agent} if agent else {}),
            **({"X-Claude-Code-Parent-Agent-Id": parent} if parent else {}),
        }
        self.upstream.enqueue(*claude.steps(answer, streaming=True))
        data = json.dumps({name: value for name, value in body.items() if value}).encode()
        status, _, whole, id = self.server.post("/anthropic/v1/messages?beta=true", data, **headers)
        assert (status, whole) == (200, True)
        return id


def user(*blocks: Json) -> Json:
    return {"role": "user", "content": [*blocks]}


def result(call_id: str) -> Json:
    return user({"type": "tool_result", "tool_use_id": call_id, "content": "x"}, REMINDER)


def test_a_session_of_claude_code(server: Server, upstream: Upstream) -> None:
    tool = ClaudeCode(server, upstream)
    asked = user(REMINDER, claude.text("Find the bug."))
    call, agents_call = f"toolu_{uuid4().hex}", f"toolu_{uuid4().hex}"
    title = tool.ask(
        claude.message("msg_t", claude.text('{"title":"Bug"}')),
        user(claude.text("Find the bug.")),
        tools=[],
        output_config={"format": TITLE_FORMAT},
    )
    first = tool.ask(claude.message("msg_1", claude.use(call, "Task"), stop="tool_use"), asked, ENVIRONMENT)
    of_agent = tool.ask(
        claude.message("msg_2", claude.use(agents_call, "Read"), stop="tool_use"),
        user(claude.text("Look for it in src.")),
        agent="agent-1",
        parent="agent-0",
    )
    agents_last = tool.ask(
        claude.message("msg_3", claude.text("There.")), result(agents_call), agent="agent-1"
    )
    last = tool.ask(claude.message("msg_4", claude.text("Found.")), asked, result(call), ENVIRONMENT)
    compaction = tool.ask(claude.message("msg_5", claude.text("Summary")), asked, user(claude.text(COMPACT)))
    server.record(compaction)
    records = {id: server.get(f"/interceptions/{id}") for id in (title, first, of_agent, compaction)}
    assert [record["kind"] for record in records.values()] == ["title", "main", "main", "compaction"]
    assert [[each["prompt"] for each in record["user_prompts"]] for record in records.values()] == [
        *([], ["Find the bug."], ["Look for it in src."], []),
    ]
    session = server.get(f"/sessions/{tool.session}")
    assert session["requests"] == 6
    threads = {
        thread["id"]: (
            thread["agent_id"],
            thread["prompt"],
            [action["interception_id"] for action in thread["agentic_actions"]],
        )
        for thread in session["threads"]
    }
    assert threads == {
        title: ("", "", [title]),
        first: ("", "Find the bug.", [first, last]),
        of_agent: ("agent-1", "Look for it in src.", [of_agent, agents_last]),
        compaction: ("", "", [compaction]),
    }
    assert [agent["agent_id"] for agent in session["agents"]] == ["", "agent-1"]
    (listed,) = server.get(f"/sessions?q=session_id:{tool.session}")["sessions"]
    assert (listed["threads"], listed["requests"], listed["last_prompt"]) == (2, 6, "Look for it in src.")


def test_a_session_of_codex(server: Server, upstream: Upstream) -> None:
    session, call = str(uuid4()), uuid4().hex
    headers = {"User-Agent": "codex_exec/0.169.0 (Debian 12.0.0; x86_64)", "Session-Id": session}
    context = {
        "type": "message",
        "role": "user",
        "content": [{"type": "input_text", "text": "<environment_context/>"}],
    }
    prompt = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Add a test."}]}
    output = {"type": "function_call_output", "call_id": f"call_{call}", "output": "ok"}
    ids = []
    for answer, added in (
        (responses.call(call, "exec_command"), []),
        (responses.text("m", "Done."), [output]),
    ):
        data = responses.stream(responses.response(f"resp_{len(ids)}", answer))
        upstream.enqueue(*event_stream(data, len(data)))
        body = {"model": "m-codex", "stream": True, "store": False, "input": [context, prompt, *added]}
        body["tools"] = [{"type": "function", "name": "exec_command", "parameters": {}}]
        ids.append(server.post("/openai/v1/responses", json.dumps(body).encode(), **headers)[3])
    server.record(ids[-1])
    whole = server.get(f"/sessions/{session}")
    (thread,) = whole["threads"]
    assert (whole["client"], thread["prompt"]) == ("Codex", "Add a test.")
    assert [action["interception_id"] for action in thread["agentic_actions"]] == ids
    (made,) = thread["agentic_actions"][0]["tool_calls"]
    assert made["tool"] == "exec_command"


def test_opencode_asks_for_a_title_beside_its_first_request(server: Server, upstream: Upstream) -> None:
    session = f"ses_{uuid4().hex}"
    headers = {
        "User-Agent": "opencode/1.18.33 ai-sdk/provider-utils/4.0.1 runtime/bun/1.3.14",
        "X-Session-Id": session,
    }
    words = {"role": "user", "content": "Rename it."}
    title = [
        {"role": "system", "content": "You write titles"},
        {"role": "user", "content": "Generate a title for this conversation:\n"},
        words,
    ]
    tools = [{"type": "function", "function": {"name": "edit", "parameters": {}}}]
    ids = []
    for messages, more in ((title, {}), ([words], {"tools": tools})):
        upstream.enqueue(*chat.steps(chat.completion("c", chat.message("Done.")), streaming=True))
        body = {"model": "m", "stream": True, "messages": messages, **more}
        ids.append(server.post("/openai/v1/chat/completions", json.dumps(body).encode(), **headers)[3])
    server.record(ids[-1])
    (listed,) = server.get(f"/sessions?q=session_id:{session}")["sessions"]
    assert (listed["requests"], listed["threads"], listed["last_prompt"]) == (2, 1, "Rename it.")
    (found,) = server.get(f"/interceptions?q=kind:title%20session_id:{session}")["results"]
    assert (found["id"], found["user_prompts"]) == (ids[0], [])


def test_who_is_no_such_client_says_what_a_user_says(server: Server, upstream: Upstream) -> None:
    body = {
        "model": "m",
        "messages": [{"role": "user", "content": "Generate a title for this conversation: x"}],
    }
    upstream.enqueue(*chat.steps(chat.completion("c", chat.message("X")), streaming=False))
    record = server.record(server.post("/openai/v1/chat/completions", json.dumps(body).encode())[3])
    assert (record["kind"], len(record["user_prompts"])) == ("main", 1)  # type: ignore[arg-type]

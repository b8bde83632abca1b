"""Uses the toolbox in its own process: `python -m tests.support.tool_driver MODE SETTINGS NOTES`.

MODE is `gevent` or `threads`, NOTES maps the servers' names to the files of their notes. Prints a report as
JSON.
"""

from __future__ import annotations

import sys

if __name__ == "__main__" and sys.argv[1] == "gevent":
    from gevent import monkey

    monkey.patch_all()

import json
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

from aibridge_flask import config
from aibridge_flask.errors import ClientDisconnected
from aibridge_flask.model import ToolResult
from aibridge_flask.tools import ToolBox
from aibridge_flask.waiting import UNWATCHED, under_gevent, watch
from tests.support.server import TIMEOUT_SECONDS


def to_list(result: ToolResult) -> list[object]:
    return [result.content, dict(result.structured), result.is_error, result.error]


def meet(box: ToolBox, server: str) -> list[str]:
    results: list[str] = []

    def call() -> None:
        results.append(box.call(f"bmcp_{server}_meet", "", UNWATCHED).content[0]["text"])

    callers = [threading.Thread(target=call) for _ in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    return results


def wait(condition: Callable[[], bool]) -> None:
    """As `wait_until`, but lets other threads and greenlets run."""
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def disconnect(box: ToolBox, server: str, notes: Path) -> bool:
    """Closes a client's connection while its tool runs; returns whether that ended the call."""
    server_end, client_end = socket.socketpair()

    def go() -> None:
        wait(lambda: notes.read_text() != "")
        client_end.close()

    threading.Thread(target=go).start()
    with server_end:
        client = watch(server_end)
        try:
            box.call(f"bmcp_{server}_wait", "", client)
        except ClientDisconnected:
            return True
        finally:
            client.close()
    return False


def use(box: ToolBox, server: str, notes: Path) -> dict[str, object]:
    tools = {tool.name: tool for tool in box.tools if tool.server == server}

    def call(name: str, input: str) -> list[object]:
        return to_list(box.call(tools[name].id, input, UNWATCHED))

    return {
        "names": sorted(tools),
        "schema": dict(tools["add"].input_schema),
        "add": call("add", '{"a": 1, "b": 2}'),
        "wrong": call("add", '{"a": 1, "b": "x"}'),
        "fail": call("fail", ""),
        "met": meet(box, server),
        "disconnected": disconnect(box, server, notes),
    }


def main() -> None:
    settings = config.load(json.loads(sys.argv[2]))
    notes = {name: Path(path) for name, path in json.loads(sys.argv[3]).items()}
    box = ToolBox(settings)
    wait(lambda: box.ready)
    report: dict[str, object] = {"patched": under_gevent()}
    for name, path in notes.items():
        report[name] = use(box, name, path)
        if name != "stateless":  # such a server cannot know which call is cancelled
            wait(lambda path=path: path.read_text() == "waiting\ncancelled\n")
    box.close()
    sys.stdout.write(json.dumps(report))


if __name__ == "__main__":
    main()

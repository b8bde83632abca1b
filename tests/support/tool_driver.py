"""Uses the toolbox in a process of its own: `python -m tests.support.tool_driver WAY SETTINGS NOTES`,
the way being `gevent` or `threads`, NOTES telling where the servers write theirs.

Prints as JSON what came of it.
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
from tests.support.server import PATIENCE


def plain(result: ToolResult) -> list[object]:
    return [result.content, dict(result.structured), result.is_error, result.error]


def meet(box: ToolBox, server: str) -> list[str]:
    met: list[str] = []

    def call() -> None:
        met.append(box.call(f"bmcp_{server}_meet", "", UNWATCHED).content[0]["text"])

    callers = [threading.Thread(target=call) for _ in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    return met


def wait(holds: Callable[[], bool]) -> None:
    """As `until`, and others run meanwhile."""
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def leave(box: ToolBox, server: str, notes: Path) -> bool:
    """A client leaves while its tool runs; whether the call ended with it."""
    ours, theirs = socket.socketpair()

    def go() -> None:
        wait(lambda: notes.read_text() != "")
        theirs.close()

    threading.Thread(target=go).start()
    with ours:
        client = watch(ours)
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
        return plain(box.call(tools[name].id, input, UNWATCHED))

    return {
        "names": sorted(tools),
        "schema": dict(tools["add"].input_schema),
        "add": call("add", '{"a": 1, "b": 2}'),
        "wrong": call("add", '{"a": 1, "b": "x"}'),
        "fail": call("fail", ""),
        "met": meet(box, server),
        "gone": leave(box, server, notes),
    }


def main() -> None:
    settings = config.load(json.loads(sys.argv[2]))
    notes = {name: Path(path) for name, path in json.loads(sys.argv[3]).items()}
    box = ToolBox(settings)
    wait(lambda: box.ready)
    report: dict[str, object] = {"patched": under_gevent()}
    for name, path in notes.items():
        report[name] = use(box, name, path)
        if name != "stateless":  # such a server cannot tell what is to be cancelled
            wait(lambda path=path: path.read_text() == "waiting\ncancelled\n")
    box.close()
    sys.stdout.write(json.dumps(report))


if __name__ == "__main__":
    main()

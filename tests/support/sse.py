"""Event streams as a client reads them."""

from __future__ import annotations

import json
from typing import Any


def read_events(stream: bytes) -> list[dict[str, Any]]:
    """The JSON of each event; comments and `[DONE]` are skipped."""
    events = []
    for block in stream.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n\n"):
        data = [line[5:] for line in block.split(b"\n") if line.startswith(b"data:")]
        if data and data != [b" [DONE]"]:
            events.append(json.loads(b"\n".join(data)))
    return events

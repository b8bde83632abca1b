"""Exchanges to replay: the project's own, and the recorded ones if the folder exists."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

OWN = Path(__file__).resolve().parents[1] / "exchanges"
RECORDED = Path(__file__).resolve().parents[3] / "shared" / "fixtures"
_SECTION = re.compile(rb"^-- (.+) --\n", re.MULTILINE)
_ROUTES = {"chatcompletions": "/openai/v1/chat/completions", "responses": "/openai/v1/responses"}


@dataclass(frozen=True)
class Exchange:
    """A request's body and the upstream's answer, which may be a whole HTTP message."""

    name: str
    route: str
    request: bytes
    answer: bytes
    streaming: bool

    @property
    def is_message(self) -> bool:
        return self.answer.startswith(b"HTTP/")

    @property
    def includes_usage(self) -> bool:
        """False if the bridge adds a request for the usage; it does so in streams of chat completions."""
        is_chat_stream = self.route.endswith("/chat/completions") and self.streaming
        return not is_chat_stream or b'"include_usage": true' in self.request

    def status_and_body(self) -> tuple[int, bytes]:
        if not self.is_message:
            return 200, self.answer
        head, _, body = self.answer.partition(b"\n\n")
        return int(head.split()[1]), body.strip()


def load(folder: Path) -> list[Exchange]:
    """Every answer of every file, except the later answers of dialogues on tools."""
    exchanges = []
    for path in sorted(folder.rglob("*.txtar")):
        parts = _SECTION.split(path.read_bytes())
        sections = dict(zip(parts[1::2], parts[2::2], strict=True))
        for kind in (b"streaming", b"non-streaming"):
            if b"request" in sections and kind in sections:
                exchanges.append(_exchange(path, kind.decode(), sections[b"request"], sections[kind]))
    return exchanges


def _exchange(path: Path, kind: str, request: bytes, answer: bytes) -> Exchange:
    route = next(
        (route for key, route in _ROUTES.items() if key in path.parts[-3:]), "/anthropic/v1/messages"
    )
    name = f"{path.parent.name}/{path.stem}/{kind}"
    streaming = kind == "streaming"
    if streaming and not re.search(rb'"stream":\s*true', request):
        request = request.rstrip()[:-1].rstrip() + b', "stream": true}'
    return Exchange(name, route, request, answer, streaming)


ALL = load(OWN) + load(RECORDED)

"""Who appears in the made-up history, and what they work with."""

from __future__ import annotations

from msgspec import Struct


class Model(Struct, frozen=True):
    """A model as it is asked for. `weight` is how often, among those of its client."""

    name: str
    provider: str
    weight: float


class Client(Struct, frozen=True):
    """An AI coding tool. `title_model` writes titles of sessions, "" if none does."""

    name: str
    user_agent: str
    route: str
    models: tuple[Model, ...]
    title_model: str = ""
    has_subagents: bool = False
    weight: float = 1.0


class Person(Struct, frozen=True):
    """A made-up person. `own_key`: requests go with a key of their own."""

    id: str
    name: str
    groups: tuple[str, ...]
    weight: float
    own_key: bool = False


CLIENTS = (
    Client(
        "Claude Code",
        "claude-cli/2.0.14 (external, cli)",
        "/v1/messages",
        (
            Model("claude-sonnet-4-5-20250929", "anthropic", 6),
            Model("claude-opus-4-5-20251101", "anthropic", 2),
            Model("claude-haiku-4-5-20251001", "anthropic", 2),
        ),
        title_model="claude-haiku-4-5-20251001",
        has_subagents=True,
        weight=6,
    ),
    Client(
        "Codex",
        "codex_cli_rs/0.58.0",
        "/v1/responses",
        (Model("gpt-5-codex", "openai", 5), Model("gpt-5-mini", "openai", 2)),
        weight=3,
    ),
    Client(
        "OpenCode",
        "opencode/1.0.55",
        "/v1/chat/completions",
        (Model("gpt-5-mini", "openai", 3), Model("house-coder-1", "openai", 1)),
        title_model="gpt-5-mini",
        weight=1.5,
    ),
)

PEOPLE = (
    Person("ada@example.com", "Ada", ("backend", "platform"), 5),
    Person("bo@example.com", "Bo", ("backend",), 3),
    Person("chen@example.com", "Chen", ("frontend",), 3),
    Person("dilan@example.com", "Dilan", ("frontend",), 2),
    Person("eva@example.com", "Eva", ("data",), 2),
    Person("finn@example.com", "Finn", ("data", "platform"), 1, own_key=True),
    Person("gül@example.com", "Gül", (), 1),
)


def crowd(count: int) -> tuple[Person, ...]:
    """Returns so many people, for benchmarks: a few work much, most little."""
    return tuple(_one_of_many(number) for number in range(count))


def _one_of_many(number: int) -> Person:
    return Person(
        f"person{number}@example.com", f"Person {number}", (f"team{number % 12}",), 1 / (1 + number / 8)
    )

"""What a limit is about: whom, which requests, and what of them counts."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from datetime import datetime

from msgspec import Struct

from ..config.settings import LimitSettings, Scope
from ..records.keys import account_key
from . import period

CENTRALIZED = "centralized"
EACH = "*"
ENFORCE, WARN, SHADOW = "enforce", "warn", "shadow"
FILE, API = "file", "api"
_BEDROCK_ID = re.compile(r"(?:^|[./])anthropic\.(?P<name>[^/:]+?)((?<=\d)-v\d+)?(:[^/]*)?$")


class Asked(Struct, frozen=True):
    """Who asks for what, as far as limits look at it. `at` is in seconds since the epoch, `model` the one
    that is called.
    """

    actor: str
    at: int
    groups: tuple[str, ...] = ()
    session: str = ""
    agent: str = ""
    token: str = ""
    model: str = ""
    provider: str = ""
    client: str = ""
    credential: str = ""


class Limit(Struct, frozen=True):
    """A limit as it is in effect. `source` is `file` or `api`."""

    id: str
    settings: LimitSettings
    source: str
    created_at: datetime

    @property
    def name(self) -> str:
        return self.settings.name

    def is_of_actor(self, actor_id: str) -> bool:
        """Whether it was made at run time, for this actor."""
        scope = self.settings.scope
        return self.source == API and (scope.kind, scope.of) == ("actor", actor_id)

    def covers(self, asked: Asked) -> bool:
        """Whether the limit is about such a request, whoever asks."""
        settings = self.settings
        return (
            matches(settings.models, asked.model)
            and (not settings.providers or asked.provider in settings.providers)
            and (not settings.clients or asked.client in settings.clients)
            and (settings.credential == "any" or asked.credential == CENTRALIZED)
            and not any(until.timestamp() <= asked.at for until in settings.until)
            and (settings.per != "total" or asked.at >= int(self.created_at.timestamp()))
        )

    def subjects(self, asked: Asked) -> tuple[str, ...]:
        """Returns by what names the request counts in the limit: none, one, or one a group."""
        return tuple(subjects(self.settings.scope, asked)) if self.covers(asked) else ()

    def account(self, subject: str) -> int:
        """Returns the key of what is counted together."""
        return account_key(self.name, subject)

    def amount(self, requests: int, tokens: int, micros: int) -> int:
        """Returns what of an interception's counts the limit counts."""
        return {"requests": requests, "tokens": tokens, "usd": micros}.get(self.settings.unit, 0)

    def bucket(self, at: int) -> int:
        return period.bucket(self.settings.per, at)


def subjects(scope: Scope, asked: Asked) -> Iterator[str]:
    """Yields what a scope counts a request by.

    >>> ann = Asked("ann", 0, groups=("a", "b"))
    >>> list(subjects(Scope("group", "a"), ann)), list(subjects(Scope("group", "*", True), ann))
    (['ann'], ['a', 'b'])
    """
    if scope.kind == "everyone":
        yield "everyone"
    elif scope.kind == "group":
        found = [group for group in asked.groups if scope.of in (group, EACH)]
        yield from found if scope.shared else [asked.actor for _ in found[:1]]
    else:
        value = _value(scope.kind, asked)
        if value and scope.of in (value, EACH):
            yield value


def _value(kind: str, asked: Asked) -> str:
    """The main agent of a session has no id of its own."""
    values = {"actor": asked.actor, "session": asked.session, "token": asked.token}
    return asked.agent or asked.session if kind == "agent" else values[kind]


def called_model(model: str, profile: str = "") -> str:
    """Returns the maker's name of the model that is called: the one asked for, unless `profile`, an id or ARN
    of Bedrock's, names another.

    >>> called_model("gpt-5-mini", "us.anthropic.claude-opus-4-20250514-v1:0"), called_model("gpt-5-mini")
    ('claude-opus-4-20250514', 'gpt-5-mini')
    >>> called_model("claude-x", "arn:aws:bedrock:us-east-1:1:application-inference-profile/4f")
    'claude-x'
    """
    found = _BEDROCK_ID.search(profile) if profile else None
    return found["name"] if found else model


def matches(patterns: Iterable[str], name: str) -> bool:
    """Whether a name is one of the patterns, which may end in `*`. No patterns match all.

    >>> matches(["claude-haiku-*"], "claude-haiku-4"), matches(["gpt-5"], "gpt-5-mini"), matches([], "x")
    (True, False, True)
    """
    patterns = tuple(patterns)
    return not patterns or any(_is_match(pattern, name) for pattern in patterns)


def _is_match(pattern: str, name: str) -> bool:
    return name.startswith(pattern[:-1]) if pattern.endswith(EACH) else name == pattern

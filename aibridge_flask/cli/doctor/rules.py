"""Rules: what clients need that they forbid."""

from __future__ import annotations

from collections.abc import Iterator

from ...config import Settings
from ...limits.limit import matches
from .finding import OK, WARN, Finding

_SMALL_FAST = "claude-haiku-4-5"  # what Claude Code uses for titles and summaries, as of November 2026


def check_rules(settings: Settings) -> Iterator[Finding]:
    """Claude Code asks a small fast model beside the one that its user has chosen."""
    without = [
        rule
        for rule in settings.rule
        if any(model.startswith("claude-") for model in rule.models) and not matches(rule.models, _SMALL_FAST)
    ]
    for rule in without:
        detail = f"the rule for {rule.scope.kind} {rule.scope.of}".rstrip() + " allows no claude-haiku model"
        advice = (
            "Claude Code asks one for titles and summaries, and each such request is refused:"
            ' add "claude-haiku-*" to the rule\'s models.'
        )
        yield Finding("rules", WARN, detail, advice)
    if settings.rule and not without:
        yield Finding("rules", OK, f"{len(settings.rule)} rules")

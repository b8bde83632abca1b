"""Which models those who ask may use at all."""

from __future__ import annotations

from collections.abc import Sequence

from ..config.settings import RuleSettings
from .limit import Asked, subjects


def allowed_models(rules: Sequence[RuleSettings], asked: Asked) -> tuple[str, ...]:
    """Returns the patterns of models that are allowed, of all rules that match; none: all models are.

    >>> from ..config.settings import Scope
    >>> rules = [RuleSettings(Scope("group", "interns"), ("claude-haiku-*",))]
    >>> allowed_models(rules, Asked("ann", 0, groups=("interns",))), allowed_models(rules, Asked("bob", 0))
    (('claude-haiku-*',), ())
    """
    found = [
        model
        for rule in rules
        if (not rule.clients or asked.client in rule.clients) and any(subjects(rule.scope, asked))
        for model in rule.models
    ]
    return tuple(dict.fromkeys(found))

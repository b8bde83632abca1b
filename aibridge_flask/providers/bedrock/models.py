"""What Claude models on Bedrock take: data, with its sources. A beta that Bedrock or the model does not
know makes it refuse the whole request, so that only what is listed here is sent.

Betas: https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters-anthropic-claude-messages-request-response.html
Interleaved thinking: https://platform.claude.com/docs/en/build-with-claude/extended-thinking
Tool search: https://platform.claude.com/docs/en/agents-and-tools/tool-use/tool-search-tool
Adaptive thinking: https://docs.aws.amazon.com/bedrock/latest/userguide/claude-messages-adaptive-thinking.html
Compaction: https://docs.aws.amazon.com/bedrock/latest/userguide/claude-messages-compaction.html
No beta at all since Opus 4.7: https://github.com/anthropics/claude-code/issues/49648
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_NEW_NAME = re.compile(r"claude-(?P<family>[a-z]+)-(?P<major>\d{1,2})(?:[-.](?P<minor>\d{1,2}))?(?!\d)")
_OLD_NAME = re.compile(r"claude-(?P<major>\d)(?:[-.](?P<minor>\d))?-(?P<family>[a-z]+)")
_PREVIEW = re.compile(r"claude-(?P<family>mythos)-preview")
_PLAIN_ID = re.compile(r"anthropic\.claude[^/]*$")

_FOUR = frozenset((
    "opus-4", "opus-4-1", "opus-4-5", "opus-4-6", "sonnet-4", "sonnet-4-5", "sonnet-4-6", "haiku-4-5",
))  # fmt: skip
_SEARCHING = frozenset(("opus-4-5", "opus-4-6", "sonnet-4-5", "sonnet-4-6"))
_COMPACTING = frozenset(("opus-4-6", "sonnet-4-6"))

BETAS: dict[str, frozenset[str]] = {
    "compact-2026-01-12": _COMPACTING,
    "computer-use-2025-01-24": frozenset((
        "sonnet-3-7", "opus-4", "opus-4-1", "sonnet-4", "sonnet-4-5", "haiku-4-5",
    )),
    "computer-use-2025-11-24": frozenset(("opus-4-5", "opus-4-6", "sonnet-4-6")),
    "context-1m-2025-08-07": frozenset(("sonnet-4", "sonnet-4-5", "opus-4-6", "sonnet-4-6")),
    "context-management-2025-06-27": frozenset(("sonnet-4-5", "haiku-4-5")),
    "dev-full-thinking-2025-05-14": _FOUR,
    "effort-2025-11-24": frozenset(("opus-4-5",)),
    "fine-grained-tool-streaming-2025-05-14": _FOUR,
    "interleaved-thinking-2025-05-14": _FOUR,
    "output-128k-2025-02-19": frozenset(("sonnet-3-7",)),
    "token-efficient-tools-2025-02-19": _FOUR | {"sonnet-3-7"},
    "tool-examples-2025-10-29": frozenset(("opus-4-5",)),
    "tool-search-tool-2025-10-19": _SEARCHING,
}  # fmt: skip
"""Which models take a beta."""

OTHER_NAMES = {"advanced-tool-use-2025-11-20": ("tool-search-tool-2025-10-19", "tool-examples-2025-10-29")}
"""What a beta of Anthropic's own is called on Bedrock."""

REFUSED_FIELDS = ("metadata", "service_tier", "container", "inference_geo")
"""Fields of Anthropic's API that Bedrock's lacks."""

BETA_FIELDS = {
    "output_config": ("effort-2025-11-24",),
    "context_management": ("context-management-2025-06-27", "compact-2026-01-12"),
}
"""Fields that Bedrock takes with one of these betas alone."""

# Of `max_tokens` in percent, by effort; the original has them from
# https://openrouter.ai/docs/guides/best-practices/reasoning-tokens
BUDGETS = {"low": 20, "medium": 50, "high": 80, "max": 95}
DEFAULT_EFFORT = "high"
LEAST_BUDGET = 1024

_ADAPTIVE = (4, 6)
_ADAPTIVE_ONLY = (4, 7)
_WITHOUT_FORMAT = frozenset(("opus-4-7", "opus-4-8"))  # https://github.com/vercel/ai/pull/15288


@dataclass(frozen=True, slots=True)
class Model:
    """A model as its id tells; nothing is known of one whose id names none."""

    name: str = ""
    version: tuple[int, int] = (0, 0)

    def takes(self, beta: str) -> bool:
        return self.name in BETAS.get(beta, ())

    @property
    def budgeted(self) -> bool:
        """It knows no adaptive thinking."""
        return bool(self.name) and self.version < _ADAPTIVE

    @property
    def adaptive_only(self) -> bool:
        """It knows no thinking with a budget."""
        return self.version >= _ADAPTIVE_ONLY

    @property
    def takes_effort(self) -> bool:
        """It takes `output_config` without a beta."""
        return self.version >= _ADAPTIVE

    @property
    def takes_format(self) -> bool:
        """It takes `output_config.format` where it takes `output_config`."""
        return self.name not in _WITHOUT_FORMAT


def model_named(id: str) -> Model:
    """
    >>> [model_named(id).name for id in ("us.anthropic.claude-opus-4-20250514-v1:0", "claude-opus-4.6")]
    ['opus-4', 'opus-4-6']
    >>> model_named("anthropic.claude-3-7-sonnet-20250219-v1:0").version
    (3, 7)
    >>> model_named("arn:aws:bedrock:us-east-1:1:application-inference-profile/x4").name
    ''
    """
    found = _NEW_NAME.search(id) or _OLD_NAME.search(id)
    if found:
        version = int(found["major"]), int(found["minor"] or 0)
        digits = [str(number) for number in version if number]
        return Model("-".join([found["family"], *digits]), version)
    preview = _PREVIEW.search(id)
    return Model(preview["family"], _ADAPTIVE_ONLY) if preview else Model()


def is_small(asked: str) -> bool:
    """The client wants a small fast model."""
    return "haiku" in asked.lower()


def plain_id(id: str) -> str:
    """The model itself, where an id is that of an inference profile which names it: tokens are
    counted by models alone.

    >>> plain_id("eu.anthropic.claude-haiku-4-5-20251001-v1:0"), plain_id("arn:aws:x/y")
    ('anthropic.claude-haiku-4-5-20251001-v1:0', 'arn:aws:x/y')
    """
    found = _PLAIN_ID.search(id)
    return found[0] if found else id

"""What Claude models on Bedrock support: data, with its sources. Bedrock refuses the whole request for a beta
that it or the model does not know, so only the betas listed here are sent.

Betas: https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters-anthropic-claude-messages-request-response.html
Interleaved thinking: https://platform.claude.com/docs/en/build-with-claude/extended-thinking
Tool search: https://platform.claude.com/docs/en/agents-and-tools/tool-use/tool-search-tool
Adaptive thinking: https://docs.aws.amazon.com/bedrock/latest/userguide/claude-messages-adaptive-thinking.html
System messages: https://docs.aws.amazon.com/bedrock/latest/userguide/claude-messages-mid-conversation-system.html
Prompt caching: https://docs.aws.amazon.com/bedrock/latest/userguide/prompt-caching.html
Structured outputs: https://docs.aws.amazon.com/bedrock/latest/userguide/claude-messages-structured-outputs.html
Compaction: https://docs.aws.amazon.com/bedrock/latest/userguide/claude-messages-compaction.html
No beta at all since Opus 4.7: https://github.com/anthropics/claude-code/issues/49648
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_NEW_NAME = re.compile(r"claude-(?P<family>[a-z]+)-(?P<major>\d{1,2})(?:[-.](?P<minor>\d{1,2}))?(?!\d)")
_OLD_NAME = re.compile(r"claude-(?P<major>\d)(?:[-.](?P<minor>\d))?-(?P<family>[a-z]+)")
_PREVIEW = re.compile(r"claude-(?P<family>mythos)-preview")
_BASE_MODEL_ID = re.compile(r"anthropic\.claude[^/]*$")

_CLAUDE_4 = frozenset((
    "opus-4", "opus-4-1", "opus-4-5", "opus-4-6", "sonnet-4", "sonnet-4-5", "sonnet-4-6", "haiku-4-5",
))  # fmt: skip
_TOOL_SEARCH = frozenset(("opus-4-5", "opus-4-6", "sonnet-4-5", "sonnet-4-6"))
_COMPACTION = frozenset(("opus-4-6", "sonnet-4-6"))

BETAS: dict[str, frozenset[str]] = {
    "compact-2026-01-12": _COMPACTION,
    "computer-use-2025-01-24": frozenset((
        "sonnet-3-7", "opus-4", "opus-4-1", "sonnet-4", "sonnet-4-5", "haiku-4-5",
    )),
    "computer-use-2025-11-24": frozenset(("opus-4-5", "opus-4-6", "sonnet-4-6")),
    "context-1m-2025-08-07": frozenset(("sonnet-4", "sonnet-4-5", "opus-4-6", "sonnet-4-6")),
    "context-management-2025-06-27": frozenset(("sonnet-4-5", "haiku-4-5")),
    "dev-full-thinking-2025-05-14": _CLAUDE_4,
    "effort-2025-11-24": frozenset(("opus-4-5",)),
    "fine-grained-tool-streaming-2025-05-14": _CLAUDE_4,
    "interleaved-thinking-2025-05-14": _CLAUDE_4,
    "output-128k-2025-02-19": frozenset(("sonnet-3-7",)),
    "token-efficient-tools-2025-02-19": _CLAUDE_4 | {"sonnet-3-7"},
    "tool-examples-2025-10-29": frozenset(("opus-4-5",)),
    "tool-search-tool-2025-10-19": _TOOL_SEARCH,
}  # fmt: skip
"""The models that support a beta."""

BEDROCK_NAMES = {"advanced-tool-use-2025-11-20": ("tool-search-tool-2025-10-19", "tool-examples-2025-10-29")}
"""Bedrock's names for one of Anthropic's betas."""

FIELDS = frozenset((
    "anthropic_version", "anthropic_beta", "max_tokens", "messages", "system", "temperature", "top_p",
    "top_k", "stop_sequences", "tools", "tool_choice", "thinking", "output_config", "context_management",
))  # fmt: skip
"""The fields of a request that Bedrock knows. Anthropic's API has more, and gets more still."""

BETA_FIELDS = {
    "output_config": ("effort-2025-11-24",),
    "context_management": ("context-management-2025-06-27", "compact-2026-01-12"),
}
"""Fields that Bedrock accepts only with one of these betas."""

BETA_TOOL_MEMBERS = {
    "input_examples": "tool-examples-2025-10-29",
    "defer_loading": "tool-search-tool-2025-10-19",
}
"""Members of tools that Bedrock accepts only with this beta."""

UNSUPPORTED_TOOL_MEMBERS = frozenset(("eager_input_streaming", "allowed_callers"))
"""Members of tools that Bedrock does not know."""

_TOOL_MEMBERS = frozenset(("type", "name", "description", "input_schema", "cache_control"))
# Percent of `max_tokens`, by effort. The Go original takes them from
# https://openrouter.ai/docs/guides/best-practices/reasoning-tokens
BUDGET_PERCENT = {"low": 20, "medium": 50, "high": 80, "max": 95}
DEFAULT_EFFORT = "high"
MIN_BUDGET_TOKENS = 1024

_FIRST_ADAPTIVE = (4, 6)
_FIRST_ADAPTIVE_ONLY = (4, 7)
_FIRST_WITH_LONG_CACHE = _FIRST_STRICT = (4, 5)
_FIRST_WITH_SYSTEM_MESSAGES = (4, 8)
_WITHOUT_FORMAT = frozenset(("opus-4-7", "opus-4-8"))  # https://github.com/vercel/ai/pull/15288


@dataclass(frozen=True, slots=True)
class Model:
    """What a model's id says about it; empty if the id does not name a model."""

    name: str = ""
    version: tuple[int, int] = (0, 0)

    def supports_beta(self, beta: str) -> bool:
        return self.name in BETAS.get(beta, ())

    @property
    def needs_budget(self) -> bool:
        """Whether the model has no adaptive thinking."""
        return bool(self.name) and self.version < _FIRST_ADAPTIVE

    @property
    def is_adaptive_only(self) -> bool:
        """Whether the model has no thinking with a budget."""
        return self.version >= _FIRST_ADAPTIVE_ONLY

    @property
    def supports_effort(self) -> bool:
        """Whether the model accepts `output_config` without a beta."""
        return self.version >= _FIRST_ADAPTIVE

    @property
    def takes_system_messages(self) -> bool:
        """Whether messages of role `system` may stand among the others."""
        return self.version >= _FIRST_WITH_SYSTEM_MESSAGES

    @property
    def cache_control_members(self) -> frozenset[str]:
        """What the model knows of `cache_control`."""
        return frozenset(("type", "ttl") if self.version >= _FIRST_WITH_LONG_CACHE else ("type",))

    @property
    def tool_members(self) -> frozenset[str]:
        """What the model knows of a custom tool, without betas."""
        return _TOOL_MEMBERS | {"strict"} if self.version >= _FIRST_STRICT else _TOOL_MEMBERS

    @property
    def supports_format(self) -> bool:
        """Whether the model accepts `output_config.format` if it accepts `output_config`."""
        return self.name not in _WITHOUT_FORMAT


def parse_model_id(id: str) -> Model:
    """Reads family and version from a Bedrock or Anthropic model id.

    >>> [parse_model_id(id).name for id in ("us.anthropic.claude-opus-4-20250514-v1:0", "claude-opus-4.6")]
    ['opus-4', 'opus-4-6']
    >>> parse_model_id("anthropic.claude-3-7-sonnet-20250219-v1:0").version
    (3, 7)
    >>> parse_model_id("arn:aws:bedrock:us-east-1:1:application-inference-profile/x4").name
    ''
    """
    match = _NEW_NAME.search(id) or _OLD_NAME.search(id)
    if match:
        version = int(match["major"]), int(match["minor"] or 0)
        digits = [str(number) for number in version if number]
        return Model("-".join([match["family"], *digits]), version)
    preview = _PREVIEW.search(id)
    return Model(preview["family"], _FIRST_ADAPTIVE_ONLY) if preview else Model()


def is_small_model(name: str) -> bool:
    """Whether a client that names this model wants a small fast one."""
    return "haiku" in name.lower()


def base_model_id(id: str) -> str:
    """Returns the model's own id if `id` is an inference profile that names it; else `id`.

    CountTokens accepts only model ids.

    >>> base_model_id("eu.anthropic.claude-haiku-4-5-20251001-v1:0"), base_model_id("arn:aws:x/y")
    ('anthropic.claude-haiku-4-5-20251001-v1:0', 'arn:aws:x/y')
    """
    match = _BASE_MODEL_ID.search(id)
    return match[0] if match else id

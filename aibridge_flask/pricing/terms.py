"""What decides the price of a token."""

from __future__ import annotations

import re
from datetime import datetime
from typing import NamedTuple

from .billed import Billed

_DATE = re.compile(r"[-@](\d{8}|\d{4}-\d{2}-\d{2}|\d{4})")
_REGION = re.compile(r"(?!global\.)[a-z-]{2,8}\.(?=[a-z0-9-]+\.)")
_SLOT = 30  # minutes: prices by the time of day change at the half hour at the earliest


class Terms(NamedTuple):
    """All of a token usage but its counts: usages with the same terms have the same prices per token."""

    model: str
    asked: str
    provider: str
    provider_name: str
    profile: str
    service_tier: str
    speed: str
    inference_geo: str
    is_batch: bool
    at: datetime

    @property
    def length(self) -> int:
        """The number of characters of its texts."""
        return sum(map(len, self[:8]))

    @property
    def names(self) -> tuple[str, ...]:
        """The names under which the settings may have a price, the first one first."""
        return tuple(name for name in (self.model, self.profile, self.asked) if name)

    @property
    def references(self) -> tuple[str, ...]:
        """The names under which a catalog may have a price."""
        if self.provider == "bedrock" and self.profile:
            return _bedrock_references(self.profile, self.model or self.asked)
        if not self.model:
            return (self.asked,)
        return (self.model, self.asked) if is_alias(self.asked, self.model) else (self.model,)

    @property
    def context(self) -> dict[str, str]:
        """What selects among a model's prices, in the words of genai-prices."""
        if self.is_batch or self.service_tier == "batch":
            words = {"processing": "batch", "speed": self.speed}
        else:
            words = {"service_tier": self.service_tier, "speed": self.speed}
        return {key: value for key, value in words.items() if value}


def terms_of(billed: Billed) -> Terms:
    at = billed.at.replace(minute=billed.at.minute // _SLOT * _SLOT, second=0, microsecond=0)
    return Terms(
        billed.model,
        billed.asked,
        billed.provider,
        billed.provider_name,
        billed.profile,
        billed.service_tier,
        billed.speed,
        billed.inference_geo,
        billed.is_batch,
        at,
    )


def is_alias(name: str, dated: str) -> bool:
    """Whether `name` is `dated` without its date.

    >>> is_alias("gpt-4o", "gpt-4o-2024-08-06"), is_alias("gpt-4", "gpt-4o-2024-08-06")
    (True, False)
    """
    plain = name.removesuffix("-latest")
    return bool(plain) and dated.startswith(plain) and bool(_DATE.fullmatch(dated, len(plain)))


def _bedrock_references(profile: str, model: str) -> tuple[str, ...]:
    """A profile id or a model's ARN names its model and region. The ARN of an application's profile names
    neither: then it is the model that served, at the price of a region.
    """
    name = profile.rpartition("/")[2]
    if "." in name:
        return name, _REGION.sub("", name, count=1)
    return (model,) if ":application-inference-profile/" in profile else ()

"""A token usage with all that decides its price."""

from __future__ import annotations

from datetime import datetime

from msgspec import Struct

from ..model import Usage


class Billed(Struct, frozen=True):
    """What one token usage is priced by.

    `model` served and `asked` was asked for; either may be "". `provider` is the type, `at` is in UTC.
    `profile` is the profile id, model id or ARN that was called on Bedrock. `service_tier`, `speed` and
    `inference_geo` are the answer's own words.
    """

    usage: Usage
    model: str
    asked: str
    provider: str
    provider_name: str
    at: datetime
    profile: str = ""
    service_tier: str = ""
    speed: str = ""
    inference_geo: str = ""
    is_batch: bool = False

"""Providers: data, built from the settings."""

from __future__ import annotations

from ..config import ProviderSettings
from .anthropic import Anthropic
from .copilot import Copilot
from .openai import OpenAI
from .provider import Provider, StoredRoute, decode_path

__all__ = ["Anthropic", "Copilot", "OpenAI", "Provider", "StoredRoute", "build", "decode_path"]

_TYPES = {"anthropic": Anthropic, "bedrock": Anthropic, "openai": OpenAI, "copilot": Copilot}


def build(settings: ProviderSettings) -> Provider:
    """Builds the configured provider. Raises ConfigError if a library is missing."""
    return _TYPES[settings.type](settings)

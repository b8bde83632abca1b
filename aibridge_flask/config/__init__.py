"""Configuration: marshmallow schemas load it into frozen settings."""

from .load import load, take_snapshot
from .schemas import settings_table
from .settings import ProviderSettings, Settings

__all__ = ["ProviderSettings", "Settings", "load", "settings_table", "take_snapshot"]

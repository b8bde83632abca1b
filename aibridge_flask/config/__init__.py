"""Configuration: marshmallow schemas -> frozen settings."""

from .load import load, take
from .schemas import table
from .settings import ProviderSettings, Settings

__all__ = ["ProviderSettings", "Settings", "load", "table", "take"]

"""AI Bridge for Flask: a gateway between AI coding tools and their providers."""

from .errors import BridgeError, ConfigError
from .extension import AIBridge, create_app
from .model import Actor

__all__ = ["AIBridge", "Actor", "BridgeError", "ConfigError", "create_app"]

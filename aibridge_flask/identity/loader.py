"""The shape of an actor loader."""

from __future__ import annotations

from collections.abc import Callable

from flask import Request

from ..model import Actor

ActorLoader = Callable[[Request], Actor | None]
"""Tells who asks, or None for 401; may raise a ClientError that says more."""

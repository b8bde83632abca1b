"""The Flask extension, and the standalone application made of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary, WeakSet

from flask import Flask, Request, Response

from . import config, identity
from .bridge import Bridge
from .errors import BridgeError, UnknownProvider
from .formats import CHAT
from .hooks import Hooks
from .identity import ActorLoader
from .model import Actor, new_id
from .observe import logs
from .observe.metrics import Metrics
from .outbound import Outbound
from .records.events import InterceptionEnded, InterceptionStarted
from .records.recorder import Recorder
from .routes import BridgeBlueprint, add_catch_all, error_response, provider_blueprint
from .tools import ToolBox
from .upstream.shared_state import SharedState
from .web import health, index, metrics, records

_KEY = "aibridge"
OnStarted = Callable[[InterceptionStarted], None]
OnEnded = Callable[[InterceptionEnded], None]


class AIBridge:
    """Adds the bridge to a Flask application: `AIBridge(app)`, or `init_app` later.

    Settings come from `app.config["AIBRIDGE"]` (a tree as in the TOML file), the file that
    `AIBRIDGE_CONFIG` names and the environment; they are read once, here. One object may serve
    several applications; an application takes it once.
    """

    def __init__(self, app: Flask | None = None) -> None:
        self._loader: ActorLoader | None = None
        self._closers: WeakKeyDictionary[Flask, ExitStack] = WeakKeyDictionary()
        self._draining: WeakSet[Flask] = WeakSet()
        self._hooks = Hooks()
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask) -> None:
        """Raises ConfigError with the full path of a wrong setting, RuntimeError when the
        application has a bridge already."""
        if _KEY in app.extensions:
            raise RuntimeError("this application has an AIBridge already: call init_app once")
        parts = _assemble(config.load(app.config.get("AIBRIDGE") or {}), self._hooks)
        app.extensions[_KEY] = self
        app.config["AIBRIDGE_SETTINGS"] = parts.settings
        self._closers[app] = closers = ExitStack()
        closers.callback(parts.recorder.close)
        closers.callback(parts.toolbox.close)
        closers.callback(parts.shared_state.close)
        for closing in (*parts.traces, *parts.outbounds):
            closers.callback(closing.close)
        self._register(app, parts)
        parts.recorder.start()
        parts.shared_state.start()
        parts.toolbox.start()

    def actor_loader(self, load: ActorLoader) -> ActorLoader:
        """A decorator: `load(request)` tells who asks, or None for 401. It takes the place of
        `auth.mode`."""
        self._loader = load
        return load

    def on_interception_started(self, listener: OnStarted) -> OnStarted:
        """A decorator: `listener` hears of each interception before its upstream is called."""
        self._hooks.on(InterceptionStarted, listener)
        return listener

    def on_interception_ended(self, listener: OnEnded) -> OnEnded:
        """A decorator: `listener` hears how each interception ended. It runs in the request, so it
        may not be slow; what it raises is logged and no more."""
        self._hooks.on(InterceptionEnded, listener)
        return listener

    def close(self, app: Flask) -> None:
        """Writes all records that wait and ends idle connections; for the end of a process, which
        does it by itself, and for tests."""
        self._closers[app].close()

    def drain(self, app: Flask) -> float:
        """From now on `readyz` is 503; gives the seconds to wait before the listener closes."""
        self._draining.add(app)
        settings: config.Settings = app.config["AIBRIDGE_SETTINGS"]
        return settings.drain_delay

    def _register(self, app: Flask, parts: _Parts) -> None:
        settings, recorder = parts.settings, parts.recorder
        prefix, bridge = settings.url_prefix, Bridge(settings, recorder, parts.toolbox)
        by_mode = identity.loader(settings, recorder)

        def load(request: Request) -> Actor | None:
            return (self._loader or by_mode)(request)

        for outbound in parts.outbounds:
            app.register_blueprint(
                provider_blueprint(prefix, outbound, bridge, load, settings.max_body_bytes)
            )
        web = BridgeBlueprint("aibridge")
        health.add_health(web, prefix, recorder, parts.toolbox, lambda: app in self._draining)
        records.add_records(web, prefix, load, recorder)
        if settings.metrics.enabled:
            pools = [
                (provider, outbound.pool)
                for provider, outbound in zip(settings.providers, parts.outbounds, strict=True)
            ]
            metrics.add_metrics(web, prefix, Metrics(parts.hooks, recorder, pools))
        add_catch_all(web, f"{prefix}/<path:rest>", _unknown_provider)
        app.register_blueprint(web)


@dataclass(frozen=True, slots=True)
class _Parts:
    """What one application's bridge is made of."""

    settings: config.Settings
    hooks: Hooks
    recorder: Recorder
    toolbox: ToolBox
    shared_state: SharedState
    outbounds: tuple[Outbound, ...]
    traces: tuple[Any, ...]


def _assemble(settings: config.Settings, above: Hooks) -> _Parts:
    """Raises ConfigError."""
    hooks, shared_state = Hooks(above), SharedState(settings.redis_url)
    logs.subscribe(hooks, settings.logs)
    traces = _traces(settings, hooks)
    wrap_sender = [one.wrap_sender for one in traces]
    outbounds = tuple(
        Outbound(settings, provider, shared_state, hooks, *wrap_sender) for provider in settings.providers
    )
    return _Parts(
        settings, hooks, Recorder(settings, hooks), ToolBox(settings), shared_state, outbounds, traces
    )


def _traces(settings: config.Settings, hooks: Hooks) -> tuple[Any, ...]:
    """Traces, or nothing, which costs no import either."""
    if not settings.tracing.endpoint:
        return ()
    from .observe.tracing import Traces

    return (Traces(hooks, settings.tracing),)


def _unknown_provider(rest: str) -> Response:
    error: BridgeError = UnknownProvider(rest.partition("/")[0])
    return error_response(error, CHAT, new_id(), bridged=False)


def create_app(settings: Mapping[str, Any] = {}) -> Flask:
    """The standalone application; `settings` is a tree as in `app.config["AIBRIDGE"]`."""
    app = Flask("aibridge", static_folder=None)
    app.config["AIBRIDGE"] = dict(settings)
    AIBridge(app)
    logs.configure(app.config["AIBRIDGE_SETTINGS"].logs)
    app.add_url_rule("/", "index", lambda: index.page(app.config["AIBRIDGE_SETTINGS"]))
    return app

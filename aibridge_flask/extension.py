"""The Flask extension, and the standalone application that uses it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache, partial
from typing import Any
from weakref import WeakKeyDictionary, WeakSet

from flask import Flask, Request, Response
from werkzeug.exceptions import BadHost
from werkzeug.routing import MapAdapter, Rule

from . import config, identity
from .bridge import Bridge
from .errors import BridgeError, UnknownProvider
from .formats import CHAT
from .hooks import Hooks
from .identity import ActorLoader
from .in_flight import InFlight
from .limits.limiter import Limiter
from .model import Actor, new_id
from .observe import logs
from .observe.metrics import Metrics
from .outbound import Outbound
from .records.events import InterceptionEnded, InterceptionStarted
from .records.live import LiveExchange
from .records.recorder import Recorder
from .records.stored_objects import StoredObjects
from .request_body import BodyLimits
from .routes import BridgeBlueprint, add_catch_all, error_response, provider_blueprint
from .tools import ToolBox
from .upstream.shared_state import SharedState
from .waiting import StalledClients
from .web import api, health, hosts, index, metrics, slices, ui
from .web.api.reader import Reader

_KEY = "aibridge"
OnStarted = Callable[[InterceptionStarted], None]
OnEnded = Callable[[InterceptionEnded], None]


class AIBridge:
    """Adds the bridge to a Flask application: `AIBridge(app)`, or `init_app(app)` later.

    Settings are read once, by `init_app`: from the environment, `app.config["AIBRIDGE"]` (a tree as in the
    TOML file) and the file that `AIBRIDGE_CONFIG` names. One object may serve several applications; an
    application can be added once.
    """

    def __init__(self, app: Flask | None = None) -> None:
        self._loader: ActorLoader | None = None
        self._closers: WeakKeyDictionary[Flask, ExitStack] = WeakKeyDictionary()
        self._starters: WeakKeyDictionary[Flask, tuple[Callable[[], None], ...]] = WeakKeyDictionary()
        self._draining: WeakSet[Flask] = WeakSet()
        self._hooks = Hooks()
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask) -> None:
        """Registers the routes. Does no I/O but for reading the configuration.

        Raises ConfigError with the full path of a wrong setting, RuntimeError if the application already has
        a bridge.
        """
        if _KEY in app.extensions:
            raise RuntimeError("this application has an AIBridge already: call init_app once")
        parts = _build_parts(config.load(app.config.get("AIBRIDGE") or {}), self._hooks)
        app.extensions[_KEY] = self
        app.config["AIBRIDGE_SETTINGS"] = parts.settings
        self._closers[app] = closers = ExitStack()
        closers.callback(parts.recorder.close)
        closers.callback(parts.limiter.close)
        closers.callback(parts.toolbox.close)
        closers.callback(parts.shared_state.close)
        for part in (*parts.tracers, *parts.outbounds):
            closers.callback(part.close)
        self._register(app, parts)
        self._starters[app] = (
            parts.recorder.start,
            parts.limiter.start,
            parts.shared_state.start,
            parts.toolbox.start,
        )

    def start(self, app: Flask) -> None:
        """Starts the background work of a worker process: records, shared state, MCP tools.

        Without it they start with the first request that needs them. Raises ConfigError, OSError if the log
        cannot be created.
        """
        for start in self._starters[app]:
            start()

    def actor_loader(self, load: ActorLoader) -> ActorLoader:
        """Decorator: `load(request)` returns the actor, or None for 401. It replaces `auth.mode`."""
        self._loader = load
        return load

    def on_interception_started(self, listener: OnStarted) -> OnStarted:
        """Decorator: `listener` is called for each interception before its upstream is called."""
        self._hooks.on(InterceptionStarted, listener)
        return listener

    def on_interception_ended(self, listener: OnEnded) -> OnEnded:
        """Decorator: `listener` is called at the end of each interception.

        It runs in the request, so it must be fast. An exception is logged and has no other effect.
        """
        self._hooks.on(InterceptionEnded, listener)
        return listener

    def close(self, app: Flask) -> None:
        """Writes all pending records and closes idle connections.

        A process does so at its exit; call it to close an application earlier, as tests do.
        """
        self._closers[app].close()

    def drain(self, app: Flask) -> float:
        """Makes `readyz` answer 503; returns the seconds to wait before the listener is closed."""
        self._draining.add(app)
        settings: config.Settings = app.config["AIBRIDGE_SETTINGS"]
        return settings.drain_delay

    def _register(self, app: Flask, parts: _Parts) -> None:
        settings, recorder = parts.settings, parts.recorder
        prefix = settings.url_prefix
        bridge = Bridge(settings, recorder, parts.toolbox, parts.limiter, parts.in_flight)
        limits = BodyLimits(settings.max_body_bytes, settings.client_timeout)
        stalled = StalledClients(settings.client_timeout)
        self._closers[app].callback(stalled.close)
        mode_loader = identity.loader_for(settings, recorder)

        def load_actor(request: Request) -> Actor | None:
            return (self._loader or mode_loader)(request)

        for outbound in parts.outbounds:
            app.register_blueprint(provider_blueprint(prefix, outbound, bridge, load_actor, limits, stalled))
        web = BridgeBlueprint("aibridge")
        web.before_request(hosts.refuse_invalid_host)
        health.add_health(web, prefix, recorder, parts.limiter, parts.toolbox, lambda: app in self._draining)
        if settings.metrics.enabled:
            pools = [
                (provider, outbound.pool)
                for provider, outbound in zip(settings.providers, parts.outbounds, strict=True)
            ]
            metrics.add_metrics(web, prefix, Metrics(parts.hooks, recorder, pools))
        add_catch_all(web, f"{prefix}/<path:rest>", _unknown_provider)
        app.register_blueprint(web)

        def token_loaders() -> tuple[identity.TokenLoader, ...]:
            is_asked = not self._loader
            return (mode_loader,) if is_asked and isinstance(mode_loader, identity.TokenLoader) else ()

        signer = ui.Signer(settings, recorder)
        visitors = ui.Visitors(load_actor, token_loaders, signer, recorder, prefix)
        reader = Reader(recorder, stalled)
        known = (parts.outbounds, parts.toolbox, parts.limiter, parts.in_flight)
        records = api.records_blueprint(prefix, visitors.load_reader, reader, *known)
        records.before_request(hosts.refuse_invalid_host)
        records.after_request(slices.slice_large_pages(stalled))
        app.register_blueprint(records)
        pages = ui.ui_blueprint(settings, visitors, reader, *known)
        pages.before_request(hosts.refuse_invalid_host)
        pages.after_request(slices.slice_large_pages(stalled))
        app.register_blueprint(pages)


@dataclass(frozen=True, slots=True)
class _Parts:
    """The parts of one application's bridge. `tracers` holds one Tracer or none."""

    settings: config.Settings
    hooks: Hooks
    recorder: Recorder
    limiter: Limiter
    toolbox: ToolBox
    in_flight: InFlight
    shared_state: SharedState
    outbounds: tuple[Outbound, ...]
    tracers: tuple[Any, ...]


def _build_parts(settings: config.Settings, parent: Hooks) -> _Parts:
    """Raises ConfigError."""
    hooks, shared_state = Hooks(parent), SharedState(settings.redis_url, settings.redis_prefix)
    logs.subscribe(hooks, settings.logs)
    tracers = _tracers(settings, hooks)
    wrappers = [tracer.wrap_sender for tracer in tracers]
    in_flight = InFlight()
    recorder = Recorder(settings, hooks, LiveExchange(in_flight))
    common = (shared_state, hooks, StoredObjects(recorder), *wrappers)
    outbounds = tuple(Outbound(settings, provider, *common) for provider in settings.providers)
    limiter, toolbox = Limiter(settings, recorder, hooks), ToolBox(settings)
    return _Parts(settings, hooks, recorder, limiter, toolbox, in_flight, shared_state, outbounds, tracers)


def _tracers(settings: config.Settings, hooks: Hooks) -> tuple[Any, ...]:
    """Returns a Tracer if tracing is configured. Otherwise OpenTelemetry is not even imported."""
    if not settings.tracing.endpoint:
        return ()
    from .observe.tracing import Tracer

    return (Tracer(hooks, settings.tracing),)


def _unknown_provider(rest: str) -> Response:
    error: BridgeError = UnknownProvider(rest.partition("/")[0])
    return error_response(error, CHAT, new_id(), is_bridged=False)


class _Rule(Rule):
    """Compiles what builds its URL only when a URL is built: that takes most of an application's start."""

    def _compile_builder(self, append_unknown: bool = True) -> Callable[..., tuple[str, str]]:
        compiled = cache(partial(super()._compile_builder, append_unknown))

        def build(rule: Rule, **values: Any) -> tuple[str, str]:
            return compiled()(rule, **values)

        return build


class _Standalone(Flask):
    """Routes also what Werkzeug refuses for its `Host`: the views refuse it in their own shape."""

    url_rule_class = _Rule

    def create_url_adapter(self, request: Request | None) -> MapAdapter | None:
        try:
            return super().create_url_adapter(request)
        except BadHost:
            environ = {**request.environ, "HTTP_HOST": "invalid"} if request else {}
            return self.url_map.bind_to_environ(environ)


def create_app(settings: Mapping[str, Any] = {}) -> Flask:
    """Returns the standalone application. `settings` is a tree as in `app.config["AIBRIDGE"]`.

    Raises ConfigError.
    """
    app = _Standalone("aibridge", static_folder=None)
    app.config["AIBRIDGE"] = dict(settings)
    AIBridge(app)
    logs.configure(app.config["AIBRIDGE_SETTINGS"].logs)
    web = BridgeBlueprint("index")
    web.before_request(hosts.refuse_invalid_host)
    web.add_url_rule("/", "page", lambda: index.page(app.config["AIBRIDGE_SETTINGS"]))
    app.register_blueprint(web)
    return app

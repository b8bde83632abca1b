"""The settings as frozen values. `schemas.py` documents each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from ..model import EMPTY, Secret


@dataclass(frozen=True, slots=True)
class AuthSettings:
    mode: str
    byok: str
    actor_header: str
    groups_header: str
    admin_actors: tuple[str, ...]
    admin_groups: tuple[str, ...]
    trusted_proxies: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RecordSettings:
    prompts: bool
    tool_inputs: bool
    thoughts: bool
    retention_days: int
    usage_retention_days: int
    on_database_down: str
    durability: str


@dataclass(frozen=True, slots=True)
class LogSettings:
    level: str
    format: str
    records: bool


@dataclass(frozen=True, slots=True)
class McpSettings:
    tool_timeout: float
    max_rounds: int


@dataclass(frozen=True, slots=True)
class MetricsSettings:
    enabled: bool


@dataclass(frozen=True, slots=True)
class Scope:
    """Whom a limit or rule is about. `kind` is `everyone`, `actor`, `group`, `session`, `agent` or `token`.

    `of` is its name or id; `*`: each one by itself. `shared`: a group's members have one pool.
    """

    kind: str = "everyone"
    of: str = ""
    shared: bool = False


@dataclass(frozen=True, slots=True)
class LimitSettings:
    """A limit. `unit` is `usd` (then `amount` is in micro-dollars), `tokens`, `requests` or `parallel`.

    `per` is "" for `parallel`. `until` holds one time or none.
    """

    name: str
    scope: Scope
    unit: str
    amount: int
    per: str = ""
    models: tuple[str, ...] = ()
    providers: tuple[str, ...] = ()
    clients: tuple[str, ...] = ()
    mode: str = "enforce"
    credential: str = "centralized"
    until: tuple[datetime, ...] = ()
    instead: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RuleSettings:
    """Which models those in a scope may use at all."""

    scope: Scope
    models: tuple[str, ...]
    clients: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class LimitsSettings:
    on_database_down: str
    unpriced: str
    contact: str
    notice_url: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class TracingSettings:
    endpoint: str
    prompts: bool
    propagate: bool


@dataclass(frozen=True, slots=True)
class Price:
    """US$ per million tokens; `web_search` in US$ per 1,000, one value or none."""

    input: float
    output: float
    cache_read: float
    cache_write: float
    cache_write_1h: float
    web_search: tuple[float, ...] = field(default=(), kw_only=True)


@dataclass(frozen=True, slots=True)
class BreakerSettings:
    failure_threshold: int
    interval: float
    timeout: float
    max_requests: int


@dataclass(frozen=True, slots=True)
class AwsSettings:
    region: str
    access_key: Secret
    secret_key: Secret
    role_arn: str
    external_id: str
    model: str
    small_fast_model: str


@dataclass(frozen=True, slots=True)
class ProviderSettings:
    """One provider. `circuit_breaker` and `aws` hold one value or none."""

    type: str
    name: str
    enabled: bool
    base_url: str
    keys: tuple[Secret, ...]
    passthrough_ownership: str
    send_actor_headers: bool
    api_dump_dir: str
    max_retries: int
    inject_tools: bool
    force_usage: bool
    ca_file: str
    proxy: str = field(repr=False)
    admin_key: Secret = field(default_factory=lambda: Secret(""))
    price_factor: float = 1.0
    circuit_breaker: tuple[BreakerSettings, ...] = ()
    aws: tuple[AwsSettings, ...] = ()


@dataclass(frozen=True, slots=True)
class McpServerSettings:
    name: str
    url: str
    headers: Mapping[str, Secret]
    allow: str
    deny: str


@dataclass(frozen=True, slots=True)
class Settings:
    url_prefix: str
    database_url: str = field(repr=False)
    redis_url: str = field(repr=False)
    redis_prefix: str
    spool_dir: str
    drop_headers: tuple[str, ...]
    max_body_bytes: int
    client_timeout: float
    keepalive_interval: float
    connect_timeout: float
    ca_file: str
    proxy: str = field(repr=False)
    drain_delay: float
    read_timeout: float
    max_retries: int
    auth: AuthSettings
    records: RecordSettings
    logs: LogSettings
    mcp: McpSettings
    metrics: MetricsSettings
    tracing: TracingSettings
    limits: LimitsSettings
    providers: tuple[ProviderSettings, ...]
    mcp_servers: tuple[McpServerSettings, ...] = ()
    prices: Mapping[str, Price] = field(default_factory=lambda: EMPTY)
    prices_file: str = ""
    limit: tuple[LimitSettings, ...] = ()
    rule: tuple[RuleSettings, ...] = ()
    secret_key: Secret = field(default_factory=lambda: Secret(""))

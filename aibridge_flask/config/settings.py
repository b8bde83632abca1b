"""The settings as frozen values. What each means stands beside its schema in `schemas.py`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ..model import EMPTY, Secret


@dataclass(frozen=True, slots=True)
class Auth:
    mode: str
    byok: str
    actor_header: str
    admin_actors: tuple[str, ...]
    trusted_proxies: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Records:
    prompts: bool
    tool_inputs: bool
    thoughts: bool
    retention_days: int
    on_database_down: str


@dataclass(frozen=True, slots=True)
class Logs:
    level: str
    format: str
    records: bool


@dataclass(frozen=True, slots=True)
class Mcp:
    tool_timeout: float
    max_rounds: int


@dataclass(frozen=True, slots=True)
class Metrics:
    enabled: bool


@dataclass(frozen=True, slots=True)
class Tracing:
    endpoint: str
    prompts: bool
    propagate: bool


@dataclass(frozen=True, slots=True)
class Price:
    """US$ per million tokens."""

    input: float
    output: float
    cache_read: float
    cache_write: float


@dataclass(frozen=True, slots=True)
class CircuitBreaker:
    failure_threshold: int
    interval: float
    timeout: float
    max_requests: int


@dataclass(frozen=True, slots=True)
class Aws:
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
    send_actor_headers: bool
    api_dump_dir: str
    max_retries: int
    inject_tools: bool
    ca_file: str
    proxy: str = field(repr=False)
    circuit_breaker: tuple[CircuitBreaker, ...] = ()
    aws: tuple[Aws, ...] = ()


@dataclass(frozen=True, slots=True)
class McpServer:
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
    spool_dir: str
    max_body_bytes: int
    keepalive_interval: float
    connect_timeout: float
    ca_file: str
    proxy: str = field(repr=False)
    drain_delay: float
    read_timeout: float
    max_retries: int
    auth: Auth
    records: Records
    logs: Logs
    mcp: Mcp
    metrics: Metrics
    tracing: Tracing
    providers: tuple[ProviderSettings, ...]
    mcp_servers: tuple[McpServer, ...] = ()
    prices: Mapping[str, Price] = field(default_factory=lambda: EMPTY)

"""The schemas of the configuration: its keys, their defaults and meanings.

The table of docs/configuration.md is generated from them (`settings_table`), so each field is one line here.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from marshmallow import Schema, ValidationError, fields, post_load, validate, validates_schema

from ..model import Secret
from . import fields as checks
from . import settings as values
from .base import Frozen, doc, one_of
from .fields import NOT_NEGATIVE, POSITIVE, Count, Flag, Number, SecretField, Text, Texts
from .limits import LimitSchema, LimitsSchema, RuleSchema

# fmt: off


class AuthSchema(Frozen):
    value_class = values.AuthSettings
    mode = Text(load_default="local", validate=one_of("local", "token", "header"), metadata=doc("who may use the bridge: `local` (direct connections from loopback), `token` or `header`"))
    byok = Text(load_default="allow", validate=one_of("allow", "reject", "ignore"), metadata=doc("users' own API keys: `allow`, `reject` (403) or `ignore` (dropped; the central keys are used)"))
    actor_header = Text(load_default="X-Remote-User", metadata=doc("mode `header`: the header that names the actor"))
    groups_header = Text(load_default="X-Remote-Groups", metadata=doc("mode `header`: the header that names the actor's groups, separated by commas"))
    admin_actors = Texts(load_default=(), metadata=doc("mode `header`: actors who may read everybody's records"))
    admin_groups = Texts(load_default=(), metadata=doc("mode `header`: groups whose members may"))
    trusted_proxies = Texts(load_default=("127.0.0.1/32", "::1/128"), validate=checks.networks, metadata=doc("mode `header`: the peers that may set these headers"))


class RecordsSchema(Frozen):
    value_class = values.RecordSettings
    prompts = Flag(load_default=True, metadata=doc("false: no prompt is stored"))
    tool_inputs = Flag(load_default=True, metadata=doc("false: no input of a tool call is stored"))
    thoughts = Flag(load_default=True, metadata=doc("false: no thought is stored"))
    retention_days = Count(load_default=60, metadata=doc("days that prompts, inputs of tool calls, thoughts and error messages are kept; 0 keeps them for ever"))
    usage_retention_days = Count(load_default=400, metadata=doc("days that interceptions are kept, with their tokens and cost; 0 keeps them for ever; sums stay"))
    on_database_down = Text(load_default="spool", validate=one_of("spool", "refuse"), metadata=doc("`spool`: records wait in the log; `refuse`: new interceptions get 500 `recording_failed`"))
    durability = Text(load_default="log", validate=one_of("log", "database"), metadata=doc("what the start and the last event of an interception wait for: the append to the `log`, or the commit in the `database` (5 seconds at most)"))


class LogsSchema(Frozen):
    value_class = values.LogSettings
    level = Text(load_default="info", validate=one_of("debug", "info", "warning", "error"), metadata=doc("`debug`, `info`, `warning` or `error`"))
    format = Text(load_default="plain", validate=one_of("plain", "json"), metadata=doc("`plain` or `json`"))
    records = Flag(load_default=False, metadata=doc("true: a JSON line for each record, for a SIEM"))


class McpSchema(Frozen):
    value_class = values.McpSettings
    tool_timeout = Number(load_default=60.0, validate=POSITIVE, metadata=doc("seconds that a tool call may take"))
    max_rounds = Count(load_default=20, validate=POSITIVE, metadata=doc("maximum of upstream requests per client request"))


class MetricsSchema(Frozen):
    value_class = values.MetricsSettings
    enabled = Flag(load_default=False, metadata=doc("true: Prometheus metrics at `/metrics`"))


class TracingSchema(Frozen):
    value_class = values.TracingSettings
    endpoint = Text(load_default="", validate=[checks.optional_url, checks.has_opentelemetry], metadata=doc("base URL of an OTLP/HTTP collector; `/v1/traces` is added; empty: off"))
    prompts = Flag(load_default=False, metadata=doc("true: spans have the recorded prompts as attributes"))
    propagate = Flag(load_default=False, metadata=doc("true: the upstream gets the bridge's `traceparent` instead of the client's"))


class PriceSchema(Frozen):
    value_class = values.Price
    input = Number(required=True, validate=NOT_NEGATIVE, metadata=doc("US$ per million input tokens"))
    output = Number(required=True, validate=NOT_NEGATIVE, metadata=doc("US$ per million output tokens"))
    cache_read = Number(validate=NOT_NEGATIVE, metadata=doc("US$ per million tokens read from the cache; default: `input`"))
    cache_write = Number(validate=NOT_NEGATIVE, metadata=doc("US$ per million tokens written to the cache; default: `input`"))
    cache_write_1h = Number(validate=NOT_NEGATIVE, metadata=doc("US$ per million tokens written to the cache for an hour; default: `cache_write`"))
    web_search = Number(validate=NOT_NEGATIVE, metadata=doc("US$ per 1,000 web searches; default: the list price, else 10.0"))

    @post_load
    def _make(self, data: dict[str, Any], **kwargs: Any) -> values.Price:
        written = data.get("cache_write", data["input"])
        absent = {"cache_read": data["input"], "cache_write": written, "cache_write_1h": written}
        fees = {"web_search": (data["web_search"],) if "web_search" in data else ()}
        return values.Price(**{**absent, **data, **fees})


class CircuitBreakerSchema(Frozen):
    value_class = values.BreakerSettings
    failure_threshold = Count(load_default=5, validate=POSITIVE, metadata=doc("consecutive failures that open it"))
    interval = Number(load_default=10.0, validate=POSITIVE, metadata=doc("seconds after which a closed breaker forgets its failures"))
    timeout = Number(load_default=30.0, validate=POSITIVE, metadata=doc("seconds until an open breaker becomes half-open"))
    max_requests = Count(load_default=3, validate=POSITIVE, metadata=doc("concurrent trial requests while half-open"))


class AwsSchema(Frozen):
    value_class = values.AwsSettings
    region = Text(required=True, metadata=doc("AWS region"))
    access_key = SecretField(load_default=lambda: Secret(""), metadata=doc("both keys or neither; neither: boto's default chain"))
    secret_key = SecretField(load_default=lambda: Secret(""), metadata=doc("both keys or neither; neither: boto's default chain"))
    role_arn = Text(load_default="", metadata=doc("role to assume"))
    external_id = Text(load_default="", metadata=doc("external id for the role"))
    model = Text(required=True, metadata=doc("model id or ARN of an inference profile"))
    small_fast_model = Text(required=True, metadata=doc("the model for requests whose model has `haiku` in its name"))

    @validates_schema
    def _both_keys(self, data: dict[str, Any], **kwargs: Any) -> None:
        if bool(data["access_key"]) != bool(data["secret_key"]):
            raise ValidationError("access_key and secret_key go together", "secret_key")


class ProviderSchema(Frozen):
    value_class = values.ProviderSettings
    type = Text(required=True, validate=one_of("anthropic", "bedrock", "openai", "copilot"), metadata=doc("`anthropic`, `bedrock`, `openai` or `copilot`"))
    name = Text(validate=checks.provider_name, metadata=doc("the name in the routes; default: the type"))
    enabled = Flag(load_default=True, metadata=doc("false: all its paths return 503"))
    base_url = Text(load_default="", validate=checks.optional_url, metadata=doc("default: the provider's own"))
    keys = fields.List(SecretField(), load_default=list, metadata=doc('central keys, in the order of use, each `{ env = "NAME" }`, `{ file = "path" }` or `{ value = "key" }`'))
    passthrough_ownership = Text(load_default="known", validate=one_of("known", "strict", "off"), metadata=doc("with a central key, stored responses and conversations are for who made them through the bridge; one that nobody is known to have made is for all (`known`) or for admins only (`strict`); `off`: no check"))
    send_actor_headers = Flag(load_default=False, metadata=doc("true: `X-AI-Bridge-Actor-*` are sent to the upstream"))
    api_dump_dir = Text(load_default="", validate=checks.dump_folder, metadata=doc("folder for redacted raw dumps"))
    max_retries = Count(metadata=doc("default: the global one"))
    force_usage = Flag(load_default=True, metadata=doc("false: streamed chat completions are not asked for their usage, for upstreams that refuse `stream_options`"))
    admin_key = SecretField(load_default=lambda: Secret(""), metadata=doc("for `aibridge reconcile` alone: a key that may read the account's bill"))
    price_factor = Number(load_default=1.0, validate=NOT_NEGATIVE, metadata=doc("what this account pays of the list price; it does not apply to `[prices]`"))
    inject_tools = Flag(load_default=True, metadata=doc("false: no tools of MCP servers are offered"))
    ca_file = Text(metadata=doc("default: the global one"))
    proxy = Text(validate=checks.proxy_url, metadata=doc("default: the global one"))
    circuit_breaker = fields.Nested(CircuitBreakerSchema, metadata=doc("absent: no breaker"))
    aws = fields.Nested(AwsSchema, metadata=doc("type `bedrock` only, and required there"))

    @validates_schema
    def _fits_type(self, data: dict[str, Any], **kwargs: Any) -> None:
        if (data["type"] == "bedrock") != ("aws" in data):
            raise ValidationError('[providers.aws] goes with type = "bedrock", and only there', "aws")
        if data["type"] in ("bedrock", "copilot") and data["keys"]:
            raise ValidationError(f"{data['type']} takes no keys", "keys")

    @post_load
    def _make(self, data: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        """Returns a dict: `SettingsSchema` adds the inherited settings."""
        data["keys"] = tuple(data["keys"])
        data["circuit_breaker"] = (data["circuit_breaker"],) if "circuit_breaker" in data else ()
        data["aws"] = (data["aws"],) if "aws" in data else ()
        return {"name": data["type"], **data}


class McpServerSchema(Frozen):
    value_class = values.McpServerSettings
    name = Text(required=True, validate=checks.plain_name, metadata=doc("the name in the ids of its tools"))
    url = Text(required=True, validate=checks.http_url, metadata=doc("Streamable HTTP endpoint"))
    headers = fields.Dict(Text(), SecretField(), load_default=dict, metadata=doc("headers to send, each a secret as in `keys`"))
    allow = Text(load_default="", validate=checks.pattern, metadata=doc("regular expression, searched in the tool's name; empty: all tools"))
    deny = Text(load_default="", validate=checks.pattern, metadata=doc("wins over `allow`"))


# fmt: on


def _section(schema: type[Schema]) -> fields.Nested:
    return fields.Nested(schema, load_default=lambda: schema().load({}))


# fmt: off


class SettingsSchema(Frozen):
    value_class = values.Settings
    url_prefix = Text(load_default="/api/v2/aibridge", validate=checks.url_prefix, metadata=doc("prefix of all routes"))
    database_url = Text(load_default="sqlite:///aibridge.db", validate=checks.database_url, metadata=doc("SQLite, or `postgresql+psycopg://user:pw@host/db`"))
    redis_url = Text(load_default="", validate=checks.redis_url, metadata=doc("Redis that shares the state of keys and circuit breakers among processes and hosts"))
    redis_prefix = Text(load_default="aibridge", validate=validate.Length(min=1, error="a name is expected"), metadata=doc("what the names of keys in Redis begin with: two deployments on one Redis need two"))
    spool_dir = Text(load_default="", metadata=doc("the folder of the workers' logs; default: beside the SQLite file, else `$STATE_DIRECTORY`, else `./aibridge-spool`"))
    secret_key = SecretField(load_default=lambda: Secret(""), metadata=doc("signs the dashboard's cookies and forms; default: made once, in a file of `spool_dir` that its owner alone may read; several hosts need it set"))
    drop_headers = fields.List(Text(), load_default=list, metadata=doc("further request headers that never go to a provider"))
    max_body_bytes = Count(load_default=33554432, validate=POSITIVE, metadata=doc("larger request bodies get 413"))
    client_timeout = Number(load_default=60.0, validate=POSITIVE, metadata=doc("seconds without progress while a request's body is read or a response is written"))
    keepalive_interval = Number(load_default=10.0, validate=POSITIVE, metadata=doc("seconds without a byte after which an event stream gets a ping"))
    connect_timeout = Number(load_default=10.0, validate=POSITIVE, metadata=doc("seconds"))
    ca_file = Text(load_default="", metadata=doc("CA bundle for upstreams; else `SSL_CERT_FILE`, `REQUESTS_CA_BUNDLE`"))
    proxy = Text(load_default="", validate=checks.proxy_url, metadata=doc("HTTP proxy for upstreams; else `HTTPS_PROXY`, `HTTP_PROXY`, `NO_PROXY`"))
    drain_delay = Number(load_default=5.0, validate=NOT_NEGATIVE, metadata=doc("seconds from `readyz` 503 to the closing of the listener"))
    read_timeout = Number(load_default=600.0, validate=POSITIVE, metadata=doc("seconds without a byte from the upstream"))
    max_retries = Count(load_default=0, metadata=doc("of 408, 409, 5xx and refused connections, before the first byte"))
    prices_file = Text(load_default="", metadata=doc("newer list prices, in the format of genai-prices' `data.json`; what it lacks, the library has"))
    auth = _section(AuthSchema)
    records = _section(RecordsSchema)
    logs = _section(LogsSchema)
    mcp = _section(McpSchema)
    metrics = _section(MetricsSchema)
    limits = _section(LimitsSchema)
    tracing = _section(TracingSchema)
    prices = fields.Dict(Text(validate=checks.model_pattern), fields.Nested(PriceSchema), load_default=dict, metadata=doc("your own prices, by model; a name may end in `*`"))
    providers = fields.List(fields.Nested(ProviderSchema), load_default=list)
    mcp_servers = fields.List(fields.Nested(McpServerSchema), load_default=list)
    limit = fields.List(fields.Nested(LimitSchema), load_default=list)
    rule = fields.List(fields.Nested(RuleSchema), load_default=list)

    # fmt: on

    @post_load
    def _make(self, data: dict[str, Any], **kwargs: Any) -> values.Settings:
        inherited = ("max_retries", "ca_file", "proxy")
        providers = [
            values.ProviderSettings(**{**{name: data[name] for name in inherited}, **provider})
            for provider in data["providers"]
        ]
        _check_distinct("providers", [provider.name for provider in providers])
        for name in ("mcp_servers", "limit"):
            _check_distinct(name, [each.name for each in data[name]])
        lists = {name: tuple(data[name]) for name in ("drop_headers", "mcp_servers", "limit", "rule")}
        return values.Settings(**{**data, **lists, "providers": tuple(providers)})


def _check_distinct(where: str, names: list[str]) -> None:
    for position, name in enumerate(names):
        if name in names[:position]:
            raise ValidationError({where: {position: {"name": [f"{name!r} stands there twice"]}}})


def settings_table(schema: type[Schema] = SettingsSchema, prefix: str = "") -> Iterator[tuple[str, str, str]]:
    """Yields the rows of that table: setting, default, meaning."""
    for name, field in schema().fields.items():
        inner: Any = field.inner if isinstance(field, fields.List) else field
        inner = inner.value_field if isinstance(inner, fields.Dict) else inner
        path = f"{prefix}{name}"
        if isinstance(inner, fields.Nested):
            mark = {fields.List: "[].", fields.Dict: ".<model>."}.get(type(field), ".")
            yield from settings_table(type(inner.schema), path + mark)
        else:
            yield path, _default(field), field.metadata["doc"]


def _default(field: fields.Field[Any]) -> str:
    if field.required:
        return "required"
    default = field.load_default
    shown = "" if callable(default) or repr(default) == "<marshmallow.missing>" else default
    shown = list(shown) if isinstance(shown, tuple) else shown
    return f"`{str(shown).lower() if isinstance(shown, bool) else shown}`" if shown not in ("", []) else ""

"""What is sent to one provider: credentials, headers, and the sending itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from . import headers
from .config import ProviderSettings, Settings
from .errors import ByokDisabled, MissingCredential
from .hooks import Hooks
from .model import Actor, ClientRequest, UpstreamRequest
from .ownership import Ownership
from .protocols import UpstreamResponse
from .providers import Provider, build
from .records.stored_objects import StoredObjects
from .upstream.attempts import Attempted, Attempts
from .upstream.breaker import Breakers
from .upstream.dump import DumpingSender
from .upstream.keys import (
    CENTRALIZED,
    PASSTHROUGH,
    Credential,
    CredentialSource,
    KeyPool,
    RequestSigning,
    UserKey,
    user_credential,
)
from .upstream.shared_state import SharedState
from .upstream.transport import Sender, Transport
from .waiting import Client

_IDENTITY = ("Accept-Encoding", "identity")


class Outbound:
    """A provider with its connections, keys, breakers and stored objects."""

    def __init__(
        self, settings: Settings, configured: ProviderSettings, shared_state: SharedState, hooks: Hooks,
        objects: StoredObjects, wrap_sender: Callable[[Sender], Sender] = lambda sender: sender,
    ) -> None:  # fmt: skip
        """`wrap_sender` may return a sender that observes each attempt."""
        self.provider = provider = build(configured)
        self.hooks, self.rules = hooks, settings.rule
        self.ownership = Ownership(provider, objects, settings.max_body_bytes)
        auth = settings.auth
        self._byok = auth.byok
        identity = (auth.actor_header, auth.groups_header) if auth.mode == "header" else ()
        names = frozenset(map(headers.wsgi_name, [*identity, *settings.drop_headers]))
        self._dropped = headers.DROPPED_REQUEST_HEADERS | names
        self._dropped_if_bridged = self._dropped | {"accept-encoding"}
        self._dropped_if_decoded = self._dropped_if_bridged | {"content-encoding"}
        transport = Transport(configured, provider.base_url, settings.connect_timeout, settings.read_timeout)
        folder = provider.api_dump_dir
        sender = DumpingSender(transport, provider.name, folder) if folder else transport
        self._sender = wrap_sender(sender)
        self.pool = KeyPool(provider.name, provider.auth_header, provider.keys, shared_state, hooks)
        self.breakers = Breakers(
            provider.name, provider.circuit_breaker, provider.failure_statuses, shared_state, hooks
        )
        self._attempts = Attempts(
            self._sender, self.breakers, provider.max_retries, provider.prepare, provider.decode
        )

    def credentials_for(self, client_headers: Mapping[str, str]) -> CredentialSource:
        """Returns the user's own credential if the settings allow it, else the central keys.

        `client_headers` has lower-case names. Raises ByokDisabled, MissingCredential.
        """
        provider = self.provider
        if provider.signing_hint:
            return RequestSigning(Credential(CENTRALIZED, provider.signing_hint))
        own = user_credential(provider.user_headers, client_headers)
        policy = "allow" if provider.byok_only else self._byok
        if own and policy == "allow":
            return UserKey(own[0])
        if own and policy == "reject":
            raise ByokDisabled
        if not self.pool:
            raise MissingCredential(_advice(provider))
        return self.pool

    def bridged_request(
        self,
        request: ClientRequest,
        url: str,
        body: bytes,
        actor: Actor,
        credentials: CredentialSource,
        is_decoded: bool,
        id: str,
        model: str,
    ) -> UpstreamRequest:
        """Returns a bridged request without credential. It asks for an uncompressed response, which is read.

        `is_decoded`: `body` no longer has the content codings that the client's headers name.
        """
        dropped = self._dropped_if_decoded if is_decoded else self._dropped_if_bridged
        return self._request(request, url, body, actor, credentials, dropped, (_IDENTITY,), id, model)

    def passthrough_request(
        self, request: ClientRequest, body: bytes, actor: Actor, credentials: CredentialSource
    ) -> UpstreamRequest:
        """Returns a passthrough request without credential."""
        url = self.provider.url(request)
        return self._request(request, url, body, actor, credentials, self._dropped, ())

    def send(
        self,
        request: UpstreamRequest,
        credentials: CredentialSource,
        endpoint: str,
        model: str,
        client: Client,
        on_attempt: Callable[[], None],
    ) -> Attempted:
        """Sends a bridged request; calls `on_attempt` before each time.

        Raises UpstreamError, ClientDisconnected.
        """
        return self._attempts.send(request, credentials, endpoint, model, client, on_attempt)

    def send_passthrough(
        self, request: UpstreamRequest, credentials: CredentialSource, client: Client
    ) -> UpstreamResponse:
        """Sends a passthrough request, without a circuit breaker. Raises as `send` does."""
        return self._attempts.send(request, credentials, "", PASSTHROUGH, client).response

    def close(self) -> None:
        """Closes idle connections."""
        self._sender.close()

    def _request(
        self, request: ClientRequest, url: str, body: bytes, actor: Actor, credentials: CredentialSource,
        dropped: frozenset[str], added: Iterable[tuple[str, str]], id: str = "", model: str = "",
    ) -> UpstreamRequest:  # fmt: skip
        fields = [("Host", self.provider.host)]
        is_central = credentials.first.kind == CENTRALIZED
        fields += headers.to_upstream(request.headers, dropped, is_central)
        fields += added
        if self.provider.send_actor_headers:
            fields += headers.actor_headers(actor)
        if body or request.method not in ("GET", "HEAD", "OPTIONS"):
            fields.append(("Content-Length", str(len(body))))
        return UpstreamRequest(request.method, url, tuple(fields), body, id, model)


def _advice(provider: Provider) -> str:
    header_names = " or ".join(name.title() for name in provider.user_headers)
    advice = f'no credential for AI provider "{provider.name}": send your own in {header_names}'
    return advice if provider.byok_only else f"{advice}, or have an administrator configure a key for it"

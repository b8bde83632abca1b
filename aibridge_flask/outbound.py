"""One provider's way out: which credentials, which headers, and the sending itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from . import headers
from .config import ProviderSettings, Settings
from .errors import ByokDisabled, MissingCredential
from .hooks import Hooks
from .model import Actor, ClientRequest, UpstreamRequest, UpstreamResponse
from .providers import Provider, build
from .upstream.attempts import Attempted, Attempts
from .upstream.breaker import Breakers
from .upstream.dump import DumpingSender
from .upstream.keys import (
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
    """A provider with its connections, keys and breakers."""

    def __init__(
        self, settings: Settings, configured: ProviderSettings, shared_state: SharedState, hooks: Hooks,
        wrap_sender: Callable[[Sender], Sender] = lambda sender: sender,
    ) -> None:  # fmt: skip
        """`around` may look on at what is sent."""
        self.provider = provider = build(configured)
        self.hooks = hooks
        self._byok = settings.auth.byok
        own = {settings.auth.actor_header.lower()} if settings.auth.mode == "header" else set()
        self._not_passed = headers.DROPPED_REQUEST_HEADERS | own
        self._not_bridged = self._not_passed | {"accept-encoding"}
        self._not_decoded = self._not_bridged | {"content-encoding"}
        transport = Transport(configured, provider.base_url, settings.connect_timeout, settings.read_timeout)
        folder = provider.api_dump_dir
        self._transport = wrap_sender(
            DumpingSender(transport, provider.name, folder) if folder else transport
        )
        self.pool = KeyPool(provider.name, provider.auth_header, provider.keys, shared_state, hooks)
        breakers = Breakers(
            provider.name, provider.circuit_breaker, provider.failure_statuses, shared_state, hooks
        )
        self._attempts = Attempts(
            self._transport, breakers, provider.max_retries, provider.prepare, provider.decode
        )

    def keys(self, given: Mapping[str, str]) -> CredentialSource:
        """The user's own credential, if the settings let it, else the central keys.

        Raises ByokDisabled, MissingCredential.
        """
        provider = self.provider
        if provider.signing_hint:
            return RequestSigning(Credential("centralized", provider.signing_hint))
        own = user_credential(provider.user_headers, given)
        policy = "allow" if provider.byok_only else self._byok
        if own and policy == "allow":
            return UserKey(own[0])
        if own and policy == "reject":
            raise ByokDisabled
        if not self.pool:
            raise MissingCredential(_advice(provider))
        return self.pool

    def bridged_request(
        self, call: ClientRequest, url: str, body: bytes, actor: Actor, decoded: bool, id: str, model: str
    ) -> UpstreamRequest:
        """A bridged request. It asks for an answer that is not compressed, since it is read;
        `decoded` tells that the body no longer is what its `Content-Encoding` says."""
        dropped = self._not_decoded if decoded else self._not_bridged
        return self._outgoing(call, url, body, actor, dropped, (_IDENTITY,), id, model)

    def passthrough_request(self, call: ClientRequest, body: bytes, actor: Actor) -> UpstreamRequest:
        """A passthrough request."""
        return self._outgoing(call, self.provider.url(call), body, actor, self._not_passed, ())

    def send(
        self, outgoing: UpstreamRequest, keys: CredentialSource, endpoint: str, model: str, client: Client
    ) -> Attempted:
        """Sends a bridged request with the keys that it may be sent with. Raises UpstreamError,
        ClientGone."""
        return self._attempts.send(outgoing, keys, endpoint, model, client)

    def send_passthrough(
        self, outgoing: UpstreamRequest, keys: CredentialSource, client: Client
    ) -> UpstreamResponse:
        """Sends a passthrough request, which no breaker watches. Raises as `send`."""
        return self._attempts.send(outgoing, keys, "", PASSTHROUGH, client).response

    def close(self) -> None:
        """Ends the connections that wait for a next request."""
        self._transport.close()

    def _outgoing(
        self, call: ClientRequest, url: str, body: bytes, actor: Actor,
        dropped: frozenset[str], add: Iterable[tuple[str, str]], id: str = "", model: str = "",
    ) -> UpstreamRequest:  # fmt: skip
        sent = [("Host", self.provider.host)]
        sent += headers.to_upstream(call.headers, dropped)
        sent += add
        if self.provider.send_actor_headers:
            sent += headers.actor_headers(actor)
        if body or call.method not in ("GET", "HEAD", "OPTIONS"):
            sent.append(("Content-Length", str(len(body))))
        return UpstreamRequest(call.method, url, tuple(sent), body, id, model)


def _advice(provider: Provider) -> str:
    ways = " or ".join(name.title() for name in provider.user_headers)
    ask = f'no credential for AI provider "{provider.name}": send your own in {ways}'
    return ask if provider.byok_only else f"{ask}, or have an administrator configure a key for it"

"""One provider's way out: which credential, which headers, and the sending itself."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from . import headers
from .config import ProviderSettings, Settings
from .errors import ByokDisabled, MissingCredential
from .model import Actor, Call, Outgoing
from .providers import Provider, build
from .upstream.keys import Credential, central_credential, user_credential
from .upstream.transport import Transport, WireAnswer
from .waiting import Client

_IDENTITY = ("Accept-Encoding", "identity")


class Outbound:
    """A provider with its connections and keys."""

    def __init__(self, settings: Settings, configured: ProviderSettings) -> None:
        self.provider: Provider = build(configured)
        self._byok = settings.auth.byok
        self._own_header = settings.auth.actor_header.lower() if settings.auth.mode == "header" else ""
        self._transport = Transport(
            configured, self.provider.base_url, settings.connect_timeout, settings.read_timeout
        )

    def credential(self, given: Mapping[str, str]) -> Credential:
        """The user's own credential, if the settings let it, else a central key.

        Raises ByokDisabled, MissingCredential.
        """
        provider = self.provider
        own = user_credential(provider.user_headers, given)
        policy = "allow" if provider.byok_only else self._byok
        if own and policy == "allow":
            return own[0]
        if own and policy == "reject":
            raise ByokDisabled
        if not provider.keys:
            raise MissingCredential(_advice(provider))
        return central_credential(provider.auth_header, provider.keys[0])

    def bridged(
        self, call: Call, url: str, body: bytes, credential: Credential, actor: Actor, decoded: bool
    ) -> Outgoing:
        """A bridged request. It asks for an answer that is not compressed, since it is read;
        `decoded` tells that the body no longer is what its `Content-Encoding` says."""
        drop = ("accept-encoding", "content-encoding") if decoded else ("accept-encoding",)
        return self._outgoing(call, url, body, credential, actor, drop, (_IDENTITY,))

    def passed(self, call: Call, body: bytes, credential: Credential, actor: Actor) -> Outgoing:
        """A passthrough request."""
        return self._outgoing(call, self.provider.url(call), body, credential, actor, (), ())

    def send(self, outgoing: Outgoing, client: Client) -> WireAnswer:
        """Raises UpstreamUnreachable, UpstreamTimeout, ClientGone."""
        return self._transport.send(outgoing, client)

    def close(self) -> None:
        """Ends the connections that wait for a next request."""
        self._transport.close()

    def _outgoing(
        self, call: Call, url: str, body: bytes, credential: Credential, actor: Actor,
        drop: Iterable[str], add: Iterable[tuple[str, str]],
    ) -> Outgoing:  # fmt: skip
        sent = [("Host", self.provider.host)]
        sent += headers.to_upstream(call.headers, (*drop, self._own_header))
        sent += add
        sent.append(credential.header)
        if self.provider.send_actor_headers:
            sent += headers.actor_headers(actor)
        if body or call.method not in ("GET", "HEAD", "OPTIONS"):
            sent.append(("Content-Length", str(len(body))))
        return Outgoing(call.method, url, tuple(sent), body)


def _advice(provider: Provider) -> str:
    ways = " or ".join(name.title() for name in provider.user_headers)
    ask = f'no credential for AI provider "{provider.name}": send your own in {ways}'
    return ask if provider.byok_only else f"{ask}, or have an administrator configure a key for it"

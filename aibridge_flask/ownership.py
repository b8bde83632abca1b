"""Who made it may have it: stored responses and conversations belong to the actor who made them.

All actors share a provider's central keys, so the provider itself cannot tell them apart.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from . import content_coding
from .errors import AdminsOnly, BridgeError, ObjectNotFound, UnknownRoute
from .formats import body
from .headers import find
from .model import Actor, ClientRequest, RequestFacts, Turn
from .protocols import UpstreamResponse
from .providers import Provider, StoredRoute, decode_path
from .records.events import StoredObject
from .records.stored_objects import StoredObjects
from .upstream.keys import CENTRALIZED, Credential

_CHANGES = ("PUT", "PATCH", "DELETE")
_MAX_NAMED = 8  # objects in one request, each of which may cost a look into the database
_MAX_RESPONSE_BYTES = 1 << 16
Named = Sequence[tuple[str, str]]
"""Stored objects, each as what the API calls it and its id."""


def _nothing(turn: Turn) -> Iterator[StoredObject]:
    return iter(())


class Ownership:
    """The stored objects of one provider."""

    def __init__(self, provider: Provider, objects: StoredObjects, max_body_bytes: int) -> None:
        self._provider, self._objects, self._max_body_bytes = provider, objects, max_body_bytes

    def check_facts(self, facts: RequestFacts, actor: Actor, credential: Credential) -> None:
        """Checks the objects that a bridged request continues. Raises ObjectNotFound."""
        if facts.continues and not actor.admin and self._has_shared_objects(credential):
            self._check(facts.continues, actor)

    def made_by(
        self, facts: RequestFacts, actor: Actor, credential: Credential
    ) -> Callable[[Turn], Iterator[StoredObject]]:
        """Returns what gives the events of the objects that a bridged response makes."""
        if not facts.is_stored or not self._has_shared_objects(credential):
            return _nothing

        def made(turn: Turn) -> Iterator[StoredObject]:
            # the conversation of what is continued was there before, and may be somebody else's
            for id in (turn.response_id, "" if facts.continues else turn.conversation_id):
                yield from self._objects.made(self._provider.name, id, actor.id)

        return made

    def check_passthrough(
        self, request: ClientRequest, data: bytes, actor: Actor, credential: Credential
    ) -> None:
        """Checks a passthrough request, whose body is `data`.

        Raises ObjectNotFound, AdminsOnly, UnknownRoute, and the errors of a body that cannot be read.
        """
        provider = self._provider
        if actor.admin or credential.kind != CENTRALIZED:
            return
        if request.method in _CHANGES and provider.passthrough_route(request.path) in provider.admin_routes:
            raise AdminsOnly(request.method, request.path)
        if self._has_shared_objects(credential):
            for stored in provider.stored_routes:
                self._check(self._named(stored, request, data), actor)

    def read_along(
        self,
        request: ClientRequest,
        response: UpstreamResponse,
        pieces: Iterator[bytes],
        actor: Actor,
        credential: Credential,
    ) -> Iterator[bytes]:
        """Returns the pieces of a passthrough response, from which the object is read that it tells of."""
        is_made = request.method == "POST" and any(
            request.path == stored.path for stored in self._provider.stored_routes
        )
        if not is_made or not 200 <= response.status < 300 or not self._has_shared_objects(credential):
            return pieces
        return self._record_made(pieces, find(response.headers, "content-encoding"), actor)

    def _has_shared_objects(self, credential: Credential) -> bool:
        provider = self._provider
        return bool(provider.stored_routes) and provider.ownership != "off" and credential.kind == CENTRALIZED

    def _check(self, named: Named, actor: Actor) -> None:
        for position, (kind, id) in enumerate(named):
            made = self._objects.was_made_by(self._provider.name, id, actor.id)
            is_allowed = all(made) if made else self._provider.ownership == "known"
            if not is_allowed or position >= _MAX_NAMED:
                raise ObjectNotFound(kind, id)

    def _named(self, stored: StoredRoute, request: ClientRequest, data: bytes) -> Named:
        """Returns the objects that a passthrough request names. Raises UnknownRoute for a list of all."""
        if request.path == stored.path and request.method != "POST":
            raise UnknownRoute(request.method, request.path)
        stem = f"{stored.path}/"
        if not request.path.startswith(stem):
            return ()
        id = decode_path(request.path)[len(stem) :].partition("/")[0]
        if id not in stored.operations:
            return ((stored.kind, id),)
        return self._read(stored, request, data).continues if data else ()

    def _read(self, stored: StoredRoute, request: ClientRequest, data: bytes) -> RequestFacts:
        """Returns the facts of an operation's body, which is one of those that make an object."""
        encoding = request.headers.get("content-encoding", "")
        decoded = content_coding.decode(data, encoding, self._max_body_bytes) if encoding else data
        return self._provider.bridged_routes[stored.path].read(decoded)

    def _record_made(self, pieces: Iterator[bytes], encoding: str, actor: Actor) -> Iterator[bytes]:
        """Yields the pieces unchanged. The object is recorded before the client has all of them."""
        data, id = b"", ""
        for piece in pieces:
            if not id and len(data) + len(piece) <= _MAX_RESPONSE_BYTES:
                data += piece
                id = _object_id(data, encoding)
                self._objects.record(self._provider.name, id, actor.id)
            yield piece


def _object_id(data: bytes, encoding: str) -> str:
    """Returns the id of the object that a response tells of, "" as long as it is not whole."""
    try:
        decoded = content_coding.decode(data, encoding, _MAX_RESPONSE_BYTES)
    except BridgeError:
        return ""
    return body.get_string(body.loads(decoded), "id")

"""Who looks at the dashboard: as the records API knows them, or by the cookie of a login."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from flask import Request, Response
from sqlalchemy.exc import SQLAlchemyError

from ...errors import IdentityUnavailable, Unauthorized
from ...headers import TOKEN_PREFIX
from ...identity import ActorLoader, TokenLoader, require_actor, token_of
from ...model import Actor, new_id
from ...records import logins, tokens
from ...records.deadlines import DEADLINES
from ...records.recorder import Recorder
from ...waiting import TOKENS
from .signing import Signer

COOKIE = "aibridge_login"
_FORM_COOKIE = "aibridge_form"
_LOGIN, _FORM = "login", "form"
_LOGIN_SECONDS = logins.MAX_AGE.total_seconds()
_FORM_SECONDS = 12 * 3600
_LOOKUP_SECONDS, _QUERY_SECONDS = 2.0, 1.0
_READING = ("GET", "HEAD")


@dataclass(frozen=True, slots=True)
class Visitor:
    """An actor, and what its forms are bound to. `login` is the id of the login, "" without one."""

    actor: Actor
    form: str
    login: str = ""


class Visitors:
    """Identifies visitors. `token_loaders` holds one if people log in with gateway tokens, else none."""

    def __init__(
        self,
        load_actor: ActorLoader,
        token_loaders: Callable[[], tuple[TokenLoader, ...]],
        signer: Signer,
        recorder: Recorder,
        prefix: str,
    ) -> None:
        self._load_actor, self._token_loaders = load_actor, token_loaders
        self._signer, self._recorder, self._prefix = signer, recorder, prefix

    @property
    def can_log_in(self) -> bool:
        return bool(self._token_loaders())

    def visitor(self, request: Request) -> Visitor:
        """Returns who asks. Raises BridgeError, and what a host's loader raises."""
        if COOKIE in request.cookies and self.can_log_in and not token_of(request):
            return self._by_cookie(request)
        actor = require_actor(self._load_actor, request)
        return Visitor(actor, f"{actor.id}\n{actor.token_id}")

    def load_reader(self, request: Request) -> Actor | None:
        """An ActorLoader of the records API, where the cookie lets people read."""
        if request.method in _READING and COOKIE in request.cookies:
            return self.visitor(request).actor
        return self._load_actor(request)

    def _by_cookie(self, request: Request) -> Visitor:
        """Raises Unauthorized, IdentityUnavailable."""
        signed = self._signer.read(_LOGIN, request.cookies[COOKIE], _LOGIN_SECONDS)
        if not signed or self._is_ended(signed["id"]):
            raise Unauthorized
        for loader in self._token_loaders():
            if actor := loader.find(signed["token"]):
                return Visitor(actor, signed["id"], signed["id"])
        raise Unauthorized

    def _is_ended(self, login: str) -> bool:
        def query() -> bool:
            with DEADLINES.limit(_QUERY_SECONDS):
                return logins.is_ended(self._recorder.engine, login)

        try:
            return TOKENS.run(query, _LOOKUP_SECONDS)
        except (SQLAlchemyError, TimeoutError):
            raise IdentityUnavailable from None

    def log_in(self, request: Request, token: str) -> Response | None:
        """Returns an empty response with the cookie of a new login, None if the token is not valid.

        Raises IdentityUnavailable.
        """
        digest = tokens.digest(token)
        loaders = self._token_loaders() if token.startswith(TOKEN_PREFIX) else ()
        if not any(loader.find(digest) for loader in loaders):
            return None
        response = Response()
        signed = self._signer.sign(_LOGIN, {"id": new_id(), "token": digest})
        self._set(request, response, COOKIE, signed, _LOGIN_SECONDS)
        response.delete_cookie(_FORM_COOKIE, path=self._path(request))
        return response

    def log_out(self, request: Request, response: Response) -> None:
        response.delete_cookie(COOKIE, path=self._path(request))

    def form_field(self, visitor: Visitor) -> str:
        """Returns the CSRF field of a visitor's forms."""
        return self._signer.sign(_FORM, visitor.form)

    def is_own_form(self, visitor: Visitor, field: str) -> bool:
        return bool(self._signer.read(_FORM, field, _FORM_SECONDS) == visitor.form)

    def login_form(self, request: Request) -> tuple[str, str]:
        """Returns the CSRF field of the login's form, and the cookie that it is bound to."""
        cookie = request.cookies.get(_FORM_COOKIE, "") or new_id()
        return self._signer.sign(_FORM_COOKIE, cookie), cookie

    def bind_login_form(self, request: Request, response: Response, cookie: str) -> None:
        self._set(request, response, _FORM_COOKIE, cookie, _FORM_SECONDS)

    def is_own_login_form(self, request: Request, field: str) -> bool:
        cookie = request.cookies.get(_FORM_COOKIE, "")
        return bool(cookie and self._signer.read(_FORM_COOKIE, field, _FORM_SECONDS) == cookie)

    def _set(self, request: Request, response: Response, name: str, value: str, seconds: float) -> None:
        response.set_cookie(
            name,
            value,
            max_age=int(seconds),
            path=self._path(request),
            secure=request.is_secure,
            httponly=True,
            samesite="Lax",
        )

    def _path(self, request: Request) -> str:
        """The records API reads the cookie, too."""
        return f"{request.script_root}{self._prefix}"

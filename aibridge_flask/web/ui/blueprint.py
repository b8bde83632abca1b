"""The blueprint of the dashboard: each page with its visitor, its headers and its errors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import wraps
from typing import IO, Any
from urllib.parse import quote

from flask import Response, request
from sqlalchemy import Engine

from ...errors import BridgeError, ConfigError, Unauthorized
from ...model import Actor
from ...reading.connection import Source, connected
from ...reading.errors import BadQuestion, NotFound
from ...routes import BridgeBlueprint
from ..api.changes import is_cross_site
from ..api.errors import ANSWERED, InvalidParameters, Refused, TooSlow
from ..api.reader import Reader
from ..slices import file_response
from .pages import render
from .visitors import Visitor, Visitors

FORM_FIELD = "csrf"
_MAX_FORM_BYTES = 1 << 16
_POLICY = "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; object-src 'none'"
_AWAY = 503, "The records cannot be read now.", "The database is away. Nothing is lost: try again soon."
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
}


@dataclass(frozen=True, slots=True)
class Visit:
    """One request of a visitor. `root` is the URL path of the bridge's prefix, `ui` that of the dashboard."""

    visitor: Visitor
    root: str
    csrf: str
    arguments: Mapping[str, str]
    form: Mapping[str, list[str]]

    @property
    def ui(self) -> str:
        return f"{self.root}/ui"

    @property
    def actor(self) -> Actor:
        return self.visitor.actor


Question = Callable[[Source], str]
View = Callable[..., Question | Response]
"""Called with the visit and the path's variables. Returns a response, or what makes the page of the database
in a thread of the readers' pool."""


class UiBlueprint(BridgeBlueprint):
    """Serves its pages on every host."""

    def __init__(self, prefix: str, visitors: Visitors, reader: Reader) -> None:
        super().__init__("aibridge_ui")
        self.prefix, self.visitors, self.reader = prefix, visitors, reader
        self.before_request(_bound_body)
        self.after_request(_add_headers)

    def page(self, rule: str, *methods: str) -> Callable[[View], View]:
        """Decorator: a view shows the page at `rule`. To a POST it is called after the form was checked."""

        def add(view: View) -> View:
            self.add_url_rule(
                f"{self.prefix}/ui{rule}",
                view.__name__,
                self._serve(view),
                methods=methods or ("GET",),
                merge_slashes=False,
            )
            return view

        return add

    def _serve(self, view: View) -> Callable[..., Response]:
        @wraps(view)
        def serve(**path: Any) -> Response:
            try:
                visitor = self.visitors.visitor(request)
            except BridgeError as error:  # others are for the host's handlers
                return self._refuse(error)
            try:
                visit = self._visit(visitor)
            except (ConfigError, OSError) as error:  # the key to sign with
                return self.error_page(error)
            try:
                self._check_form(visit)
                found = view(visit, **path)
                return found if isinstance(found, Response) else html(self._ask(found))
            except ANSWERED as error:
                return self.error_page(error, visit)

        return serve

    def _ask(self, question: Question) -> str:
        """All that a page asks for is read on one connection."""

        def run(engine: Engine) -> str:
            with connected(engine) as connection:
                return question(connection)

        return self.reader.ask(run)

    def _visit(self, visitor: Visitor) -> Visit:
        form = dict(request.form.lists()) if request.method == "POST" else {}
        csrf = self.visitors.form_field(visitor)
        root = request.script_root + self.prefix
        return Visit(visitor, root, csrf, request.args.to_dict(), form)

    def _check_form(self, visit: Visit) -> None:
        """Raises Refused."""
        if request.method != "POST":
            return
        if is_cross_site(request):
            raise Refused(
                403, "A page of another site may not change anything.", "Use the dashboard's own form."
            )
        field = next(iter(visit.form.get(FORM_FIELD, [])), "")
        if not self.visitors.is_own_form(visit.visitor, field):
            raise Refused(400, "The form is too old, or of another login.", "Open its page again.")

    def _refuse(self, error: BridgeError) -> Response:
        if isinstance(error, Unauthorized) and self.visitors.can_log_in and request.method in ("GET", "HEAD"):
            query = f"?{request.query_string.decode('latin-1')}" if request.query_string else ""
            back = quote(request.script_root + request.path + query, safe="")
            return see(f"{self.ui}/login?next={back}")
        return self.error_page(error)

    @property
    def ui(self) -> str:
        """The URL path of the dashboard, in this request."""
        return f"{request.script_root}{self.prefix}/ui"

    def error_page(self, error: Exception, *visits: Visit) -> Response:
        """Returns the page about an error of `ANSWERED`; without a visit it has no links."""
        status, message, detail = _facts(error)
        context = {"status": status, "message": message, "detail": detail, "ui": self.ui}
        return html(render("error.html", *visits, title=message.rstrip("."), **context), status)


def csv_response(blueprint: UiBlueprint, name: str, file: IO[bytes]) -> Response:
    """Returns a file to save."""
    response = file_response(blueprint.reader.stalled, "text/csv; charset=utf-8", file)
    response.headers["Content-Disposition"] = f'attachment; filename="{name}.csv"'
    return response


def see(location: str, status: int = 303) -> Response:
    """Returns a redirection."""
    return Response(status=status, headers={"Location": location})


def html(text: str, status: int = 200) -> Response:
    return Response(text, status, mimetype="text/html")


def _facts(error: Exception) -> tuple[int, str, str]:
    """Returns status, message, and what to do."""
    facts = _AWAY
    match error:
        case BridgeError():
            facts = error.status, error.message, ""
        case Refused():
            facts = error.status, str(error), error.detail
        case InvalidParameters():
            facts = 400, "The form is not valid.", _in_words(error)
        case BadQuestion():
            facts = 400, "The address asks for something unknown.", f"{error.field}: {error.detail}"
        case NotFound():
            facts = 404, "There is no such page, or it is not yours.", ""
        case TooSlow():
            facts = 503, "This takes too long.", "Choose a shorter period."
    return facts


def _in_words(error: InvalidParameters) -> str:
    return "; ".join(f"{field}: {' '.join(map(str, messages))}" for field, messages in error.messages.items())


def _bound_body() -> None:
    """Forms are short. A longer one is 413."""
    request.max_content_length = _MAX_FORM_BYTES


def _add_headers(response: Response) -> Response:
    for name, value in _HEADERS.items():
        response.headers[name] = value
    response.headers.setdefault("Cache-Control", "no-store")
    return response

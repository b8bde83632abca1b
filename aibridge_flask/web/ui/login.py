"""Login with a gateway token, and logout; the files of the style and the script."""

from __future__ import annotations

from urllib.parse import urlsplit

from flask import Response, request

from ...errors import BridgeError
from ...records import logins
from ..api.changes import is_cross_site
from ..api.errors import Refused
from .blueprint import FORM_FIELD, Question, UiBlueprint, Visit, error_page, html, see
from .pages import STATIC, render, static_file

_STATIC_SECONDS = 86_400  # their URLs change with them
_MAX_TOKEN = 512


def add_login(blueprint: UiBlueprint) -> None:
    visitors, root = blueprint.visitors, f"{blueprint.prefix}/ui"

    def login() -> Response:
        if not visitors.can_log_in:
            return see(f"{request.script_root}{root}/")
        return _form(blueprint)

    def log_in() -> Response:
        if is_cross_site(request):
            return error_page(Refused(403, "A page of another site may not log in here.", ""))
        if not visitors.is_own_login_form(request, request.form.get(FORM_FIELD, "")):
            return error_page(Refused(400, "The form is too old.", "Open the login page again."))
        try:
            response = visitors.log_in(request, request.form.get("token", "").strip()[:_MAX_TOKEN])
        except BridgeError as error:
            return error_page(error)
        if response is None:
            return _form(blueprint, "This token is not valid.", 401)
        response.status_code = 303
        response.headers["Location"] = _next(f"{request.script_root}{root}/")
        return response

    blueprint.add_url_rule(f"{root}/login", "login", login, methods=["GET"])
    blueprint.add_url_rule(f"{root}/login", "log_in", log_in, methods=["POST"])

    @blueprint.page("/logout", "POST")
    def log_out(visit: Visit) -> Question | Response:
        if visit.visitor.login:
            blueprint.reader.ask(lambda engine: logins.end(engine, visit.visitor.login))
        response = see(f"{visit.ui}/login")
        visitors.log_out(request, response)
        return response


def add_static(blueprint: UiBlueprint) -> None:
    def static(name: str) -> Response:
        try:
            response = Response(static_file(name), mimetype=STATIC[name])
        except KeyError:
            return error_page(Refused(404, "There is no such file.", ""))
        response.headers["Cache-Control"] = f"public, max-age={_STATIC_SECONDS}, immutable"
        return response

    blueprint.add_url_rule(f"{blueprint.prefix}/ui/static/<name>", "static", static)

    @blueprint.page("/<path:rest>")
    def unknown(visit: Visit, rest: str) -> Question | Response:
        raise Refused(404, "There is no such page.", "")

    def without_slash() -> Response:
        return see(f"{request.script_root}{blueprint.prefix}/ui/", 308)

    blueprint.add_url_rule(f"{blueprint.prefix}/ui", "without_slash", without_slash)


def _form(blueprint: UiBlueprint, fault: str = "", status: int = 200) -> Response:
    field, cookie = blueprint.visitors.login_form(request)
    back = request.values.get("next", "")
    ui = f"{request.script_root}{blueprint.prefix}/ui"
    page = html(render("login.html", title="Log in", ui=ui, csrf=field, fault=fault, next=back), status)
    blueprint.visitors.bind_login_form(request, page, cookie)
    return page


def _next(home: str) -> str:
    """Returns where to go after the login: a path of the dashboard, never another site's."""
    wanted = request.form.get("next", "")
    parts = urlsplit(wanted)
    is_own = not parts.scheme and not parts.netloc and parts.path.startswith(home) and "\\" not in wanted
    return wanted if is_own and wanted.isprintable() and ".." not in parts.path else home

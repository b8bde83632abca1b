"""Requests that change something must be meant: a page of another site can make a browser send others."""

from __future__ import annotations

from urllib.parse import urlsplit

from flask import Request

from .errors import Refused

_OWN_SITES = ("same-origin", "none")


def require_deliberate(request: Request) -> None:
    """Raises Refused if another site's page sends the request, or its type is one that forms may send."""
    if is_cross_site(request):
        raise Refused(403, "a page of another site may not change anything", "cross_site")
    if request.mimetype != "application/json":
        raise Refused(400, "the header Content-Type: application/json is expected", "content_type")


def is_cross_site(request: Request) -> bool:
    """Whether another site's page sends the request. Browsers tell the site, older ones the origin alone."""
    site = request.headers.get("Sec-Fetch-Site")
    if site is not None:
        return site not in _OWN_SITES
    origin = request.headers.get("Origin")
    return origin is not None and _host(origin) != request.headers.get("Host", "").lower()


def _host(origin: str) -> str:
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return ""

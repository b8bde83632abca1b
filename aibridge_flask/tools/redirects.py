"""Redirects of an MCP server. They are followed within its own origin only: credentials are sent along."""

from __future__ import annotations

from urllib.parse import SplitResult, urljoin, urlsplit, urlunsplit

from requests.utils import requote_uri

MAX_REDIRECTS = 5
STATUSES = (301, 302, 303, 307, 308)
SEE_OTHER = 303  # asks for a GET; the others keep method and body, without which a message is none
_PORTS = {"http": 80, "https": 443}


def target(url: str, location: str) -> str:
    """Returns the URL to which a response of `url` redirects, or "" if it is of another origin.

    >>> target("http://a:80/mcp", "/mcp/?x=1"), target("http://a/mcp", "http://A:80/b c")
    ('http://a:80/mcp/?x=1', 'http://a/b%20c')
    >>> [target("http://a/mcp", other) for other in ("http://b/", "https://a/", "//a@b/", "http://[", "")]
    ['', '', '', '', '']
    """
    here = urlsplit(url)
    try:
        there = urlsplit(urljoin(url, location))
        if not location or _origin(there) != _origin(here):
            return ""
    except ValueError:
        return ""
    return str(requote_uri(urlunsplit((here.scheme, here.netloc, there.path or "/", there.query, ""))))


def _origin(url: SplitResult) -> tuple[str, str, int]:
    return url.scheme, url.hostname or "", url.port or _PORTS.get(url.scheme, 0)

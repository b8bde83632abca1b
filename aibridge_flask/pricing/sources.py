"""Reads the catalogs: the file of the settings, and the library's own data. Both are slow."""

from __future__ import annotations

import hashlib
import json
import logging
from decimal import Decimal
from pathlib import Path

from .catalog import Catalog

_log = logging.getLogger("aibridge")


def read_catalogs(prices_file: str) -> tuple[Catalog, ...]:
    """Returns the catalogs in the order in which they count. A file that cannot be read is left out."""
    try:
        files = (_read_file(prices_file),) if prices_file else ()
    except (OSError, ValueError, ImportError, RecursionError) as error:
        reason = (str(error).splitlines() or [""])[0]
        _log.warning("prices_file %s is not used: %s: %s", prices_file, type(error).__name__, reason)
        files = ()
    return (*files, _read_library())


def _read_file(path: str) -> Catalog:
    from genai_prices.types import _providers_from_raw  # the library has no public way

    data = Path(path).read_bytes()
    raw = json.loads(data, parse_float=Decimal)
    if not isinstance(raw, list) or not all(isinstance(provider, dict) for provider in raw):
        raise ValueError("an array of providers is expected, as in genai-prices' data.json")
    for provider in raw:
        provider.pop("extractors", None)  # not used here; unknown ones would cause warnings
    return Catalog(_providers_from_raw(raw), "prices_file", hashlib.sha256(data).hexdigest()[:12])


def _read_library() -> Catalog:
    from genai_prices import __version__
    from genai_prices.data import providers

    return Catalog(providers, "genai-prices", __version__)

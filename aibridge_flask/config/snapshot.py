"""The configuration as it was when it was last right. A server's master takes it at the start and at
each reload; its workers read it. So a reload with a broken configuration changes nothing.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import ConfigError
from .fields import secret_of
from .load import load, merged

_SOURCE, _SNAPSHOT = "AIBRIDGE_CONFIG_SOURCE", "AIBRIDGE_SNAPSHOT"


def take() -> str:
    """Validates the configuration, and lets `AIBRIDGE_CONFIG` name a copy of it, with its secrets,
    that the owner alone may read. Gives what is wrong, if the copy of before stands on; raises
    ConfigError if there is none."""
    source = os.environ.setdefault(_SOURCE, os.environ.get("AIBRIDGE_CONFIG", ""))
    os.environ["AIBRIDGE_CONFIG"] = source
    try:
        load({})
        tree = _with_secrets(merged({}))
    except ConfigError as error:
        if _SNAPSHOT not in os.environ:
            raise
        os.environ["AIBRIDGE_CONFIG"] = os.environ[_SNAPSHOT]
        return error.message
    os.environ["AIBRIDGE_CONFIG"] = os.environ[_SNAPSHOT] = _write(tree)
    return ""


def drop() -> None:
    """Removes the copy."""
    Path(os.environ.pop(_SNAPSHOT, "")).unlink(missing_ok=True)


def _write(tree: Any) -> str:
    file, name = tempfile.mkstemp(prefix="aibridge-", suffix=".json")  # 0600
    with os.fdopen(file, "w") as stream:
        json.dump(tree, stream)
    if _SNAPSHOT in os.environ:
        return str(Path(name).replace(os.environ[_SNAPSHOT]))
    return name


def _with_secrets(tree: Any) -> Any:
    if isinstance(tree, Mapping):
        if set(tree) in ({"env"}, {"file"}):
            return {"value": secret_of(tree)}
        return {key: _with_secrets(inner) for key, inner in tree.items()}
    return [_with_secrets(inner) for inner in tree] if isinstance(tree, list | tuple) else tree

"""Signed texts: cookies and fields of forms. What is signed for one purpose is not valid for another."""

from __future__ import annotations

from typing import Any

from itsdangerous import BadData, URLSafeTimedSerializer

from ...config import Settings
from ...records import log_folder
from ...records.recorder import Recorder


class Signer:
    """Signs with `secret_key`, or with the key of this host's log folder."""

    def __init__(self, settings: Settings, recorder: Recorder) -> None:
        self._settings, self._recorder = settings, recorder
        self._keys: tuple[str, ...] = ()

    def sign(self, purpose: str, value: Any) -> str:
        """Signs a JSON value. Raises ConfigError, OSError if the key cannot be read or made."""
        text: str | bytes = self._serializer(purpose).dumps(value)
        return text if isinstance(text, str) else text.decode()

    def read(self, purpose: str, text: str, max_age: float) -> Any:
        """Returns the value that was signed at most `max_age` seconds ago, else None."""
        try:
            return self._serializer(purpose).loads(text, max_age=int(max_age))
        except BadData:
            return None

    def _serializer(self, purpose: str) -> URLSafeTimedSerializer:
        self._keys = self._keys or (log_folder.signing_key(self._settings, self._recorder.engine.url),)
        return URLSafeTimedSerializer(self._keys[0], salt=f"aibridge.{purpose}")

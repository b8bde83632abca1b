"""AWS credentials: from the settings, from boto's default chain, or from a role to assume."""

from __future__ import annotations

import logging
import threading
from datetime import UTC, datetime
from math import inf
from time import monotonic
from typing import Any

from ...config.settings import AwsSettings, ProviderSettings
from ...errors import ConfigError, CredentialsUnavailable
from ...waiting import run_in_pool
from .signature import AwsKeys

_log = logging.getLogger("aibridge.bedrock")
_TIMEOUT_SECONDS = 5.0  # to connect, and for each read
_LOCK_TIMEOUT_SECONDS = 20.0
_RENEW_AHEAD_SECONDS = 300.0
_RETRY_SECONDS, _RETRY_WITHOUT_KEYS_SECONDS = 10.0, 1.0
_STATIC_KEYS_SECONDS = 900.0  # a file with credentials may be rewritten
_LIFETIMES_SECONDS = (3600, 1800, 900, 600, 300, 60, 0)
_SESSION_NAME = "aibridge"


class Credentials:
    """Fetches the keys at the first request, and again before they expire.

    One request renews them, while the others continue with the current keys. Fetching is slow, so it runs in
    the thread pool, all of it in one thread: what gevent creates in one thread cannot be used in another.
    """

    def __init__(self, settings: ProviderSettings, aws: AwsSettings) -> None:
        try:
            import botocore.session  # noqa: F401 - the import is slow: done now, not in a request
        except ImportError:
            raise ConfigError(
                f"providers: {settings.name} needs botocore: pip install 'aibridge-flask[bedrock]'"
            ) from None
        self._settings, self._aws = settings, aws
        self._lock = threading.Lock()
        self._keys, self._renew_at, self._expires_at = AwsKeys(), 0.0, 0.0
        if aws.access_key and not aws.role_arn:
            self._keys = AwsKeys(aws.access_key.value, aws.secret_key.value)
            self._renew_at = self._expires_at = inf

    def current(self) -> AwsKeys:
        """Returns valid keys. Raises CredentialsUnavailable."""
        if monotonic() >= self._renew_at:
            self._renew_once()
        if monotonic() >= self._expires_at:
            raise CredentialsUnavailable
        return self._keys

    def _renew_once(self) -> None:
        """Renews the keys unless another request does. All that wait for it share its failure."""
        if not self._lock.acquire(timeout=0.001 if monotonic() < self._expires_at else _LOCK_TIMEOUT_SECONDS):
            return
        try:
            if monotonic() >= self._renew_at:
                self._renew()
        finally:
            self._lock.release()

    def _renew(self) -> None:
        try:
            self._keys, lifetime = run_in_pool(self._fetch)
        except Exception as error:  # noqa: BLE001 - files, processes and servers are read: any of it may fail
            _log.warning("provider %s: no AWS credentials: %s", self._settings.name, _reason(error))
            has_keys = monotonic() < self._expires_at
            self._renew_at = monotonic() + (_RETRY_SECONDS if has_keys else _RETRY_WITHOUT_KEYS_SECONDS)
            return
        self._renew_at = monotonic() + max(lifetime - _RENEW_AHEAD_SECONDS, lifetime / 2)
        self._expires_at = monotonic() + lifetime

    def _fetch(self) -> tuple[AwsKeys, float]:
        """Returns the keys and their minimum remaining lifetime in seconds."""
        from botocore.session import Session

        session: Any = Session()
        if self._aws.access_key:
            session.set_credentials(self._aws.access_key.value, self._aws.secret_key.value)
        return self._assume_role(session) if self._aws.role_arn else _read_session(session)

    def _assume_role(self, session: Any) -> tuple[AwsKeys, float]:
        """https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRole.html"""
        from botocore.config import Config

        proxy = self._settings.proxy
        config = Config(
            connect_timeout=_TIMEOUT_SECONDS,
            read_timeout=_TIMEOUT_SECONDS,
            retries={"total_max_attempts": 2},
            proxies={"http": proxy, "https": proxy} if proxy else None,
        )
        verify = self._settings.ca_file or None
        parameters = {"RoleArn": self._aws.role_arn, "RoleSessionName": _SESSION_NAME}
        if self._aws.external_id:
            parameters["ExternalId"] = self._aws.external_id
        client = session.create_client("sts", region_name=self._aws.region, config=config, verify=verify)
        try:
            fetched = client.assume_role(**parameters)["Credentials"]
        finally:
            client.close()
        keys = AwsKeys(fetched["AccessKeyId"], fetched["SecretAccessKey"], fetched["SessionToken"])
        return keys, (fetched["Expiration"] - datetime.now(UTC)).total_seconds()


def _read_session(session: Any) -> tuple[AwsKeys, float]:
    """Like `_fetch`, with the session's own credentials."""
    credentials = session.get_credentials()
    if credentials is None:
        raise LookupError("none found")
    keys = credentials.get_frozen_credentials()
    return AwsKeys(keys.access_key, keys.secret_key, keys.token or ""), _lifetime(credentials)


def _lifetime(credentials: Any) -> float:
    """Returns a lower bound in seconds: botocore does not give the expiry, only whether less than so many
    seconds remain."""
    if not hasattr(credentials, "refresh_needed"):
        return _STATIC_KEYS_SECONDS
    lifetimes = (seconds for seconds in _LIFETIMES_SECONDS if not credentials.refresh_needed(seconds))
    return float(next(lifetimes, 0))


def _reason(error: Exception) -> str:
    """Returns the error's type and code, without data that was sent or received."""
    code = getattr(error, "response", {}).get("Error", {}).get("Code", "")
    return f"{type(error).__name__} {code}".strip()

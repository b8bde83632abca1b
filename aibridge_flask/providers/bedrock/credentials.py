"""AWS credentials: given, found by boto's default chain, or those of a role to assume."""

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
_TIMEOUT = 5.0  # seconds to connect, and without a byte
_PATIENCE = 20.0
_AHEAD = 300.0  # seconds before the end
_AGAIN, _SOON = 10.0, 1.0
_UNENDING = 900.0  # a file of credentials may be written anew
_TERMS = (3600, 1800, 900, 600, 300, 60, 0)
_SESSION_NAME = "aibridge"


class Credentials:
    """Fetched when first wanted, and again before they end: by one request for all, while the others go
    on with what there is. Fetching is slow, so it is done aside; all of it in one thread, since what
    gevent makes in one thread serves in no other."""

    def __init__(self, settings: ProviderSettings, aws: AwsSettings) -> None:
        try:
            import botocore.session  # noqa: F401 - its import is slow: now, not in a request
        except ImportError:
            raise ConfigError(
                f"providers: {settings.name} needs botocore: pip install 'aibridge-flask[bedrock]'"
            ) from None
        self._settings, self._aws = settings, aws
        self._lock = threading.Lock()
        self._keys, self._next, self._ends = AwsKeys(), 0.0, 0.0
        if aws.access_key and not aws.role_arn:
            self._keys = AwsKeys(aws.access_key.value, aws.secret_key.value)
            self._next = self._ends = inf

    def current(self) -> AwsKeys:
        """Raises CredentialsUnavailable."""
        if monotonic() >= self._next:
            self._renew_once()
        if monotonic() >= self._ends:
            raise CredentialsUnavailable
        return self._keys

    def _renew_once(self) -> None:
        """A failure counts for all who wait for it."""
        if not self._lock.acquire(timeout=0.001 if monotonic() < self._ends else _PATIENCE):
            return
        try:
            if monotonic() >= self._next:
                self._renew()
        finally:
            self._lock.release()

    def _renew(self) -> None:
        try:
            self._keys, left = run_in_pool(self._fetch)
        except Exception as error:  # noqa: BLE001 - files, processes, servers: all of it may fail
            _log.warning("provider %s: no AWS credentials: %s", self._settings.name, _reason(error))
            self._next = monotonic() + (_AGAIN if monotonic() < self._ends else _SOON)
            return
        self._next = monotonic() + max(left - _AHEAD, left / 2)
        self._ends = monotonic() + left

    def _fetch(self) -> tuple[AwsKeys, float]:
        """The keys, and the seconds that they are good for at least."""
        from botocore.session import Session

        session: Any = Session()
        if self._aws.access_key:
            session.set_credentials(self._aws.access_key.value, self._aws.secret_key.value)
        return self._assumed(session) if self._aws.role_arn else _found(session)

    def _assumed(self, session: Any) -> tuple[AwsKeys, float]:
        """https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRole.html"""
        from botocore.config import Config

        proxy = self._settings.proxy
        config = Config(
            connect_timeout=_TIMEOUT,
            read_timeout=_TIMEOUT,
            retries={"total_max_attempts": 2},
            proxies={"http": proxy, "https": proxy} if proxy else None,
        )
        verify = self._settings.ca_file or None
        wanted = {"RoleArn": self._aws.role_arn, "RoleSessionName": _SESSION_NAME}
        if self._aws.external_id:
            wanted["ExternalId"] = self._aws.external_id
        client = session.create_client("sts", region_name=self._aws.region, config=config, verify=verify)
        try:
            told = client.assume_role(**wanted)["Credentials"]
        finally:
            client.close()
        keys = AwsKeys(told["AccessKeyId"], told["SecretAccessKey"], told["SessionToken"])
        return keys, (told["Expiration"] - datetime.now(UTC)).total_seconds()


def _found(session: Any) -> tuple[AwsKeys, float]:
    found = session.get_credentials()
    if found is None:
        raise LookupError("none found")
    keys = found.get_frozen_credentials()
    return AwsKeys(keys.access_key, keys.secret_key, keys.token or ""), _term(found)


def _term(found: Any) -> float:
    """botocore does not give an end, but tells whether one is near."""
    if not hasattr(found, "refresh_needed"):
        return _UNENDING
    return float(next((term for term in _TERMS if not found.refresh_needed(term)), 0))


def _reason(error: Exception) -> str:
    """Without what was sent or received."""
    code = getattr(error, "response", {}).get("Error", {}).get("Code", "")
    return f"{type(error).__name__} {code}".strip()

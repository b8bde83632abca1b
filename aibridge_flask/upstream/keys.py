"""Which credential a request is sent with: the user's own, or a central key."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ..errors import MissingCredential
from ..headers import TOKEN_PREFIX, bearer, mask_secret
from ..model import Secret


@dataclass(frozen=True, slots=True)
class Credential:
    """The only object that holds a secret on a request's way; `repr` shows the hint."""

    kind: str
    hint: str
    header: tuple[str, str] = field(repr=False)


def user_credential(names: tuple[str, ...], headers: Mapping[str, str]) -> tuple[Credential, ...]:
    """The client's own credential in the first of these headers that holds one, or nothing.
    It goes on in the header in which it came; a gateway token never does. Raises
    MissingCredential where it is not told which of several it is: servers join repeated headers."""
    for name in names:
        value = headers.get(name, "").strip()
        if "," in value:
            raise MissingCredential(f"{name.title()} holds several credentials: send one")
        secret = bearer(value) if name == "authorization" else value
        if secret and not secret.startswith(TOKEN_PREFIX):
            return (Credential("byok", mask_secret(secret), (name.title(), value)),)
    return ()


def central_credential(header: str, key: Secret) -> Credential:
    """A key of the provider's, in the header where the provider looks for it."""
    value = f"Bearer {key.value}" if header == "Authorization" else key.value
    return Credential("centralized", mask_secret(key.value), (header, value))

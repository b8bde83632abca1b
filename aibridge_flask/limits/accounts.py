"""What is known of accounts without asking the database. It is enough for requests that are far from their
limits: each process may give away a hundredth of what is left before it looks again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from time import monotonic

from msgspec import Struct

from ..waiting import unpatched
from .claims import Charge, Claim, Used
from .notices import TOLD_FROM

_SHARE = 100
_VALID_SECONDS = 1.0
_MAX_ACCOUNTS = 10_000


class _Account(Struct):
    """`given` are the places in the log of what this process has given away, each with its amount, as long as
    `used` may lack it.
    """

    used: Used
    read_at: float
    given: deque[tuple[int, int]]
    given_total: int = 0
    start: int = 0

    @property
    def total(self) -> Used:
        return self.used.plus(self.given_total)

    def gives(self, charge: Charge) -> bool:
        """Whether nobody could be told or refused anything on account of this charge."""
        amount, used = charge.limit.settings.amount, self.used.total
        given = self.given_total + charge.held
        return used + given < amount * TOLD_FROM and given * _SHARE <= amount - used


class Accounts:
    """Of one process. Requests take from accounts; the desk's thread tells what it has read of them."""

    def __init__(self, written: Callable[[], int], applied: Callable[[], int]) -> None:
        """`written` is the place up to which the log is written, `applied` that up to which the database has
        it.
        """
        self._written, self.applied = written, applied
        self._accounts: dict[int, _Account] = {}
        self._lock = unpatched("_thread", "allocate_lock")()

    def take(self, claim: Claim) -> tuple[Used, ...]:
        """Grants a claim whose holds are to be appended to the log now. Returns what was used before of its
        accounts, nothing if the database has to be asked.
        """
        oldest = monotonic() - _VALID_SECONDS
        with self._lock:
            found: list[_Account] = []
            for charge in claim.charges:
                account = self._accounts.get(charge.account)
                if account is None or account.read_at < oldest or not account.gives(charge):
                    return ()
                found.append(account)
            used = tuple(account.total for account in found)
            place = self._written() + 1
            for account, charge in zip(found, claim.charges, strict=True):
                account.given.append((place, charge.held))
                account.given_total += charge.held
                account.start = charge.start
            return used

    def learn(self, read: Mapping[int, Used], applied: int) -> dict[int, Used]:
        """Takes what was read of accounts after the log was applied up to `applied`; returns it with what
        this process has given away since.
        """
        now = monotonic()
        with self._lock:
            if len(self._accounts) > _MAX_ACCOUNTS:
                self._accounts = {id: each for id, each in self._accounts.items() if each.given}
            return {id: self._learn(id, used, applied, now) for id, used in read.items()}

    def _learn(self, id: int, used: Used, applied: int, now: float) -> Used:
        account = self._accounts.get(id)
        if account is None:
            account = self._accounts[id] = _Account(used, now, deque())
        account.used, account.read_at = used, now
        while account.given and account.given[0][0] <= applied:
            account.given_total -= account.given.popleft()[1]
        return account.total

    def add(self, charge: Charge) -> None:
        """Adds what the database holds for a charge since the account was read."""
        with self._lock:
            account = self._accounts[charge.account]
            account.used = account.used.plus(charge.held)

    def given(self) -> dict[int, int]:
        """Returns the accounts of which something was given away, with the first bucket that counts."""
        with self._lock:
            return {id: account.start for id, account in self._accounts.items() if account.given}

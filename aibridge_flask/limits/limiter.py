"""Admits requests: rules first, then the limits that a request falls under. Who falls under none, waits for
nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from time import sleep, time

from msgspec import Struct
from msgspec.structs import replace

from ..config import Settings
from ..errors import LimitError, LimitsUnavailable
from ..hooks import Hooks, LimitRefused, LimitUsed
from ..records import database, log_folder
from ..records.events import InterceptionEnded, Started
from ..records.recorder import Recorder
from ..waiting import after_fork
from . import refusals
from .accounts import Accounts
from .claims import NOTHING, Charge, Claim, Used, claim, is_enforced, matching
from .desk import Desk, Question
from .forecast import Forecast, Forecaster
from .holds import LOCK_SECONDS, Granted
from .limit import SHADOW, Asked, Limit, called_model, matches
from .notices import Header, notice_headers, ratio
from .period import STEPS
from .rules import allowed_models
from .under_way import UnderWay
from .webhook import Webhook

_CLOSE_SECONDS = 5.0
_APPLIED_SECONDS = 0.5
_OTHERS_SECONDS = 0.1  # in which other workers' records come to the database


class Admission(Struct, frozen=True):
    """Headers for the client, and the id of a limit that has no room but is not enforced."""

    headers: tuple[Header, ...] = ()
    limit_id: str = ""


ADMITTED = Admission()


class Asking(Struct, frozen=True):
    """An interception that is to be admitted. `size` is that of its body in bytes, `max_output` the tokens
    that it asks for at most, 0 if it says nothing.

    Once it `is_weighed`, it has a `forecast` if it falls under limits, and `claim` is what it asks of them.
    `used` is what was used of these, if that was known well enough to admit it; `started` then has what it
    holds.
    """

    started: Started
    asked: Asked
    api: str
    size: int
    max_output: int
    is_weighed: bool = False
    claim: Claim = NOTHING
    forecast: tuple[Forecast, ...] = ()
    used: tuple[Used, ...] = ()


class Limiter:
    """One per application and process; it starts with the first request, and anew after a fork."""

    def __init__(self, settings: Settings, recorder: Recorder, hooks: Hooks) -> None:
        self._settings, self._recorder, self._hooks = settings, recorder, hooks
        self._forecaster = Forecaster(lambda: recorder.prices)
        self.under_way = UnderWay(self._forecaster)
        self._reset()
        after_fork(self, Limiter._reset)
        hooks.on(InterceptionEnded, self.under_way.end)

    def _reset(self) -> None:
        self._desks: tuple[Desk, ...] = ()
        self._webhooks: tuple[Webhook, ...] = ()
        self._start_lock = threading.Lock()
        self.under_way.clear()

    @property
    def is_up(self) -> bool:
        """Whether the limits can be checked, as far as is known."""
        return all(desk.is_up or not desk.has_tried for desk in self._desks)

    def start(self) -> None:
        """Starts the thread, unless it runs. Raises ConfigError, OSError."""
        self._recorder.start()
        with self._start_lock:
            if not self._desks:
                engine = database.connect(self._settings.database_url, int(LOCK_SECONDS * 1000))
                parts = (engine, self._recorder.worker_id, self._recorder.folder, self._settings.limit)
                if self._settings.limits.notice_url:
                    self._webhooks = (self._webhook(),)
                accounts = Accounts(lambda: self._recorder.written, lambda: self._recorder.applied)
                self._desks = (Desk(*parts, self.under_way.growth, self._wake_webhook, accounts),)

    def close(self) -> None:
        parts: tuple[Desk | Webhook, ...] = (*self._desks, *self._webhooks)
        self._desks, self._webhooks = (), ()
        for part in parts:
            part.close(_CLOSE_SECONDS)

    def _wake_webhook(self) -> None:
        for webhook in self._webhooks:
            webhook.wake()

    def _webhook(self) -> Webhook:
        settings, engine = self._settings, self._recorder.engine
        return Webhook(
            engine, settings.limits.notice_url, lambda: log_folder.signing_key(settings, engine.url)
        )

    def wait_until_known(self) -> None:
        """Waits for the limits to be read, if the worker has just started. Raises ConfigError, OSError."""
        self._limits()

    def refresh(self) -> None:
        """Makes a change of the limits known here; other workers hear of it within 5 seconds."""
        for desk in self._desks:
            desk.refresh()

    def prepare(self, started: Started, api: str, size: int, max_output: int) -> Asking:
        """Returns an interception as it is to be recorded, and then admitted. Waits for nothing."""
        asking = Asking(started, asked_by(started), api, size, max_output)
        for desk in self._desks:
            if desk.has_tried:
                return self._take(desk.accounts, self._weigh(asking, desk.limits))
        return asking

    def admit(self, asking: Asking) -> Admission:
        """Admits an interception whose start is recorded. Raises LimitError."""
        self._check_rules(asking.asked, asking.api)
        if not asking.is_weighed:
            asking = self._weigh(asking, self._limits())
        if not asking.forecast:
            return ADMITTED
        self._check_price(asking)
        granted = (Granted(asking.used),) if asking.used else self._ask(asking.claim)
        if not granted:
            if self._settings.limits.on_database_down == "refuse":
                raise LimitsUnavailable
            return ADMITTED
        return self._granted(asking, granted[0])

    def _weigh(self, asking: Asking, limits: Sequence[Limit]) -> Asking:
        found = matching(limits, asking.asked)
        if not found:
            return replace(asking, is_weighed=True)
        forecast = self._forecaster.forecast(asking.started, asking.size, asking.max_output)
        made = claim(asking.started.id, found, asking.asked, forecast.expected)
        return replace(asking, is_weighed=True, claim=made, forecast=(forecast,))

    def _take(self, accounts: Accounts, asking: Asking) -> Asking:
        used = accounts.take(asking.claim) if asking.forecast else ()
        if not used:
            return asking
        return replace(asking, used=used, started=replace(asking.started, holds=asking.claim.holds))

    def _granted(self, asking: Asking, grant: Granted) -> Admission:
        """Raises LimitError, if it is a refusal."""
        self._tell(asking.claim, grant)
        if grant.is_refused:
            raise self._refusal(next(each for each in grant.refused if is_enforced([each])))
        self.under_way.add(asking.started, asking.claim, asking.forecast[0])
        limit_id = next((each.limit.id for each in grant.refused), "")
        client, now = asking.started.client, int(time())
        return Admission(notice_headers(asking.claim, grant.used, client, asking.api, now), limit_id)

    def _limits(self) -> tuple[Limit, ...]:
        if not self._desks:
            self.start()
        (desk,) = self._desks
        desk.wait_until_tried()
        return desk.limits

    def _check_rules(self, asked: Asked, api: str) -> None:
        allowed = allowed_models(self._settings.rule, asked)
        if not matches(allowed, asked.model):
            contact = self._settings.limits.contact
            raise refusals.model_not_allowed(asked.model, allowed, asked.client, api, contact)

    def _check_price(self, asking: Asking) -> None:
        is_priced = all(forecast.is_priced for forecast in asking.forecast)
        if is_priced or self._settings.limits.unpriced != "refuse":
            return
        if any(charge.limit.settings.unit == "usd" for charge in asking.claim.charges):
            asked, contact = asking.asked, self._settings.limits.contact
            raise refusals.model_without_price(asked.model, asked.client, asking.api, contact)

    def _ask(self, made: Claim) -> tuple[Granted, ...]:
        """Returns the answer, none if the database is away. A refusal is asked for twice."""
        question = Question((made,))
        self._desks[0].ask(question)
        if question.grants and question.grants[0].is_refused:
            self._recorder.wait_until_own_applied(_APPLIED_SECONDS)  # what has ended holds nothing
            sleep(_OTHERS_SECONDS)
            question = Question((made,))
            self._desks[0].ask(question)
        return question.grants

    def _refusal(self, charge: Charge) -> LimitError:
        now = int(time())
        seconds = refusals.seconds_to_reset(charge, now)
        if charge.limit.settings.per in STEPS:
            question = Question(charges=(charge,))
            if self._desks[0].ask(question):
                seconds = refusals.seconds_to_room(charge, question.steps[0], now)
        return refusals.limit_reached(charge, now, seconds, self._settings.limits.contact)

    def _tell(self, made: Claim, grant: Granted) -> None:
        for charge in grant.refused:
            self._hooks.emit(LimitRefused(charge.limit.name, charge.limit.settings.mode))
        if self._hooks.has_listeners(LimitUsed):
            for charge, used in zip(made.charges, grant.used, strict=True):
                if charge.limit.settings.mode != SHADOW:
                    self._hooks.emit(LimitUsed(charge.limit.name, ratio(charge, used)))


def asked_by(started: Started) -> Asked:
    return Asked(
        actor=started.initiator_id,
        at=int(started.started_at.timestamp()),
        groups=started.groups,
        session=started.client_session_id or started.id,
        agent=started.agent_id,
        token=started.token_id,
        model=called_model(started.model, started.profile),
        provider=started.provider_name,
        client=started.client,
        credential=started.credential_kind,
    )

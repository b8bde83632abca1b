"""When what happened to an interception, by the monotonic clock."""

from __future__ import annotations

from time import monotonic

from .events import EPOCH, now


class Times:
    """`first_byte` are the seconds from the request to the first byte of the response, 0 without one;
    `overhead` are those of them that were not spent waiting for the upstream. `first_byte_at` is a UTC time.
    """

    __slots__ = ("_received", "_sent", "_upstream", "begun", "first_byte", "first_byte_at", "overhead")

    def __init__(self) -> None:
        self.begun = self._sent = self._received = monotonic()
        self.first_byte = self.overhead = self._upstream = 0.0
        self.first_byte_at = EPOCH

    @property
    def duration(self) -> float:
        """The seconds since the request."""
        return monotonic() - self.begun

    def upstream_started(self) -> None:
        """The request is about to be sent: time counts as the upstream's from now on."""
        self._upstream += self._received - self._sent
        self._sent = self._received = monotonic()

    def turn_ended(self) -> None:
        """Running tools is neither our overhead nor the upstream's time."""
        self._received = monotonic()

    def piece_received(self) -> None:
        """A piece of a response was read."""
        if not self.first_byte:
            self._received = monotonic()
        if self.first_byte_at is EPOCH:
            self.first_byte_at = now()

    def first_byte_sent(self) -> None:
        """The first piece goes to the client."""
        self.first_byte = self.duration
        self.overhead = self.first_byte - (self._upstream + self._received - self._sent)

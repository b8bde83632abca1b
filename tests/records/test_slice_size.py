"""How many frames a slice takes adapts to what slices cost."""

from __future__ import annotations

import contextlib
from time import thread_time

import pytest

from aibridge_flask.records.application import SliceSize
from aibridge_flask.records.store import DatabaseBusy, DatabaseDown


def apply(size: SliceSize, cpu_seconds: float = 0.0, error: type[Exception] | None = None) -> None:
    with contextlib.suppress(DatabaseDown), size.measured(size.frames):
        end = thread_time() + cpu_seconds
        while thread_time() < end:
            pass
        if error:
            raise error


def test_slices_grow_while_they_are_cheap() -> None:
    size = SliceSize()
    for _ in range(5):
        apply(size)
    assert size.frames == 500


def test_slices_that_cost_much_shrink_but_stay_worth_what_each_costs() -> None:
    size = SliceSize()
    for _ in range(5):
        apply(size, cpu_seconds=0.03)
    assert size.frames == 20


@pytest.mark.parametrize(("error", "frames"), [(DatabaseDown, 25), (DatabaseBusy, 50)])
def test_a_failure_may_be_the_slices_own_fault_but_a_lock_is_somebody_elses(
    error: type[Exception], frames: int
) -> None:
    size = SliceSize()
    apply(size, error=error)
    assert size.frames == frames

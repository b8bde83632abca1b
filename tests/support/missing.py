"""What a test needs and this machine lacks: on a user's machine the test is skipped, in CI (`CI=true`) it fails."""

from __future__ import annotations

import os
from typing import NoReturn

import pytest
from hypothesis import settings

_IN_CI = "TESTS_RUN_IN_CI"

if os.environ.pop("CI", "") == "true":
    # Where pytest sees CI, it explains all of a failure: to compare a few megabytes takes it hours.
    os.environ[_IN_CI] = "true"
if _IN_CI in os.environ:  # also in processes of pytest-xdist
    settings.load_profile("ci")


def missing(what: str, package: str, brew: str = "") -> NoReturn:
    """Skips or fails, and says how to get it."""
    reason = f"{what} is missing: apt-get install {package}"
    if _IN_CI in os.environ:
        pytest.fail(reason)
    pytest.skip(f"{reason} (or brew install {brew})" if brew else reason)

"""The one retry policy."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3flow import errors
from s3flow.engine.retry import UNEXPECTED, Again, Backoff, GiveUp, decide

QUICK = Backoff(0.001, 0.01)


def _all(base: type[errors.S3flowError]) -> list[type[errors.S3flowError]]:
    below = base.__subclasses__()
    return [base, *(kind for each in below for kind in _all(each))]


def _leaves(base: type[errors.S3flowError]) -> list[type[errors.S3flowError]]:
    # Those of errors.py only: a test elsewhere may define its own.
    return [kind for kind in _all(base) if kind.__module__ == errors.__name__]


@pytest.mark.parametrize("kind", _leaves(errors.Transient))
def test_what_may_pass_is_tried_until_the_attempts_are_used(kind: type[errors.Transient]) -> None:
    for attempts in range(7):
        verdict = decide(kind("x"), attempts, 8, QUICK)
        assert isinstance(verdict, Again)
        assert verdict.attempts == attempts + 1
    assert decide(kind("x"), 7, 8, QUICK) == GiveUp(8, kind.reason)


@pytest.mark.parametrize("kind", _leaves(errors.Permanent))
def test_what_cannot_pass_is_given_up_at_once(kind: type[errors.Permanent]) -> None:
    assert decide(kind("x"), 0, 8, QUICK) == GiveUp(1, kind.reason)


@pytest.mark.parametrize(
    "error", [ValueError("x"), KeyError("x"), errors.StateError("x"), TimeoutError()]
)
def test_a_surprise_gets_one_more_try(error: Exception) -> None:
    reason = getattr(error, "reason", UNEXPECTED)
    first = decide(error, 0, 8, QUICK)
    assert isinstance(first, Again)
    assert first.attempts == 1
    assert decide(error, 1, 8, QUICK) == GiveUp(2, reason)


@pytest.mark.parametrize("error", [errors.ConnectionLost("x"), ValueError("x")])
def test_one_attempt_allowed_means_no_second(error: Exception) -> None:
    assert isinstance(decide(error, 0, 1, QUICK), GiveUp)


def test_every_error_has_a_word_of_its_own() -> None:
    kinds = _leaves(errors.S3flowError)
    reasons = [kind.reason for kind in kinds]
    assert len(set(reasons)) == len(reasons)


@given(tries=st.integers(0, 10_000), first=st.floats(0.001, 10), ceiling=st.floats(0.001, 600))
def test_a_delay_stays_between_nothing_and_its_bound(
    tries: int, first: float, ceiling: float
) -> None:
    delay = Backoff(first, ceiling).delay(tries)
    assert 0 <= delay <= min(ceiling, first * 2.0 ** min(tries, 30))

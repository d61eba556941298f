"""The judge of series sees leaks and steps, and takes no noise for one."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from tests.torture.flatness import FEWEST, Point, judge


def series(value: Callable[[float], float], *, noise: float = 0.0, count: int = 400) -> list[Point]:
    """Give an hour of measurements."""
    draw = random.Random(7)
    return [Point(9.0 * n, value(n / count) + draw.gauss(0, noise)) for n in range(count)]


def spikes(at: float) -> float:
    """Give 100, and ten times as much now and then, more often towards the end."""
    return 1000.0 if int(at * 400) % (9 if at > 0.5 else 19) == 0 else 100.0


@pytest.mark.parametrize(
    ("shape", "noise"),
    [
        (lambda at: 100.0, 0.0),
        (lambda at: 100.0, 20.0),
        (lambda at: 100.0 - 50 * at, 1.0),
        (lambda at: 50 + 50 * min(1.0, at / 0.2), 1.0),
        (lambda at: 100 + 10 * (at * 40 % 1), 1.0),
        (spikes, 1.0),
    ],
    ids=["still", "noise", "falling", "warming up", "sawtooth", "spikes"],
)
def test_what_does_not_grow_is_flat(shape: Callable[[float], float], noise: float) -> None:
    judgement = judge("memory", series(shape, noise=noise), allowed=8.0)
    assert judgement.flat, judgement
    assert "flat" in str(judgement)


@pytest.mark.parametrize(
    ("shape", "noise"),
    [
        (lambda at: 100 + 20 * at, 0.0),
        (lambda at: 100 + 30 * at, 15.0),
        (lambda at: 100.0 + 20 * (at > 0.6), 2.0),
        (lambda at: 100 + 5 * int(at * 5), 1.0),
        (lambda at: 100 + 20 * at + 30 * (at * 40 % 1), 1.0),
        (lambda at: spikes(at) + 20 * at, 1.0),
    ],
    ids=["leak", "leak in noise", "step", "stairs", "leak in a sawtooth", "leak in spikes"],
)
def test_what_grows_is_not(shape: Callable[[float], float], noise: float) -> None:
    judgement = judge("memory", series(shape, noise=noise), allowed=8.0)
    assert not judgement.flat, judgement
    assert "memory: NOT FLAT" in str(judgement)


def test_a_share_of_the_median_may_be_allowed() -> None:
    grown = series(lambda at: 1000 + 60 * at)
    assert judge("database", grown, allowed=8.0, share=0.1).flat
    assert not judge("database", grown, allowed=8.0, share=0.01).flat


def test_too_little_shows_nothing() -> None:
    judgement = judge("memory", series(lambda at: 1.0, count=FEWEST), allowed=8.0)
    assert not judgement.flat
    assert "only" in str(judgement)
    assert not judge("memory", [], allowed=8.0).flat

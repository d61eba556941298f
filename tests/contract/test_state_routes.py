"""Which ways objects go is known to the next process, for the same endpoints, and for one flow alone."""

from __future__ import annotations

from dataclasses import replace

from s3flow.model import Verdict
from s3flow.policies import CopyBy
from s3flow.ports import StateStore
from tests.contract.state_kit import FLOW, Home, home, state

__all__ = ["home", "state"]
NAME = FLOW.name


def verdict(bucket: str = "from", what: str = "objects", **changes: object) -> Verdict:
    made = Verdict(NAME, bucket, what, CopyBy.SOURCE.value, "no (403): näh", 1e9 + 0.25, 2e9)
    return made._replace(**changes)  # type: ignore[arg-type]


async def test_they_outlive_the_process_in_the_order_of_their_buckets(
    home: Home, state: StateStore
) -> None:
    assert await state.open_routes(NAME, "these") == []
    given = [verdict("b"), verdict("a", "parts"), verdict("a"), verdict("B")]
    await state.keep_verdicts(given)
    again = await home.open()
    expected = sorted(given, key=lambda each: (each.bucket, each.what))
    assert await again.verdicts(NAME) == expected
    assert await again.open_routes(NAME, "these") == expected


async def test_a_later_one_takes_the_place_of_the_earlier(state: StateStore) -> None:
    await state.open_routes(NAME, "these")
    await state.keep_verdicts([verdict(), verdict("other")])
    later = verdict(way=CopyBy.STREAMED.value, reason="", decided=1.5e9)
    await state.keep_verdicts([verdict(reason="between"), later])
    assert await state.verdicts(NAME) == [later, verdict("other")]


async def test_other_endpoints_know_nothing_of_it(home: Home, state: StateStore) -> None:
    await state.open_routes(NAME, "these")
    await state.keep_verdicts([verdict()])
    assert await state.open_routes(NAME, "others") == []
    assert await state.verdicts(NAME) == []
    again = await home.open()
    assert await again.open_routes(NAME, "these") == []  # nor do these, any more


async def test_each_flow_has_its_own(state: StateStore) -> None:
    await state.open_flow(replace(FLOW, name="second"))
    for name in (NAME, "second"):
        await state.open_routes(name, "these")
    await state.keep_verdicts([verdict(), verdict(flow="second"), verdict(flow="unheard of")])
    await state.open_routes("second", "others")
    assert await state.verdicts("second") == []
    assert await state.verdicts("unheard of") == []
    assert await state.verdicts(NAME) == [verdict()]


async def test_a_flow_that_is_forgotten_takes_them_along(state: StateStore) -> None:
    await state.open_routes(NAME, "these")
    await state.keep_verdicts([verdict()])
    await state.forget(NAME)  # type: ignore[attr-defined]
    await state.keep_verdicts([verdict()])
    await state.open_flow(FLOW)
    assert await state.verdicts(NAME) == []
    assert await state.open_routes(NAME, "these") == []


async def test_reasons_and_names_may_be_long(state: StateStore) -> None:
    await state.open_routes(NAME, "0" * 32)
    given = verdict("b" * 255, reason="é" * 1000)
    await state.keep_verdicts([given])
    assert await state.verdicts(NAME) == [given]

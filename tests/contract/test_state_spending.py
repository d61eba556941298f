"""What a flow has spent, in each kind of state."""

from __future__ import annotations

from s3flow.ports import StateStore
from s3flow.records import MONEY, Spending
from tests.contract.state_kit import FLOW, Home, home, state

__all__ = ["home", "state"]
NAME = FLOW.name


async def test_what_is_spent_is_kept_in_the_place_of_what_was(home: Home) -> None:
    state = await home.open()
    await state.open_flow(FLOW)
    assert await state.spending(NAME) is None
    for last in (Spending(1, 2, 3), Spending(10**9 * MONEY, 5, 10**9 * MONEY + 5, blocked=True)):
        await state.note_spending(NAME, last)
        assert await state.spending(NAME) == last
    await state.close()
    state = await home.open()
    assert await state.spending(NAME) == last


async def test_it_is_forgotten_with_its_flow(state: StateStore) -> None:
    await state.note_spending(NAME, Spending(1, 2, 3))
    assert await state.forget(NAME)
    assert await state.spending(NAME) is None
    await state.open_flow(FLOW)
    assert await state.spending(NAME) is None

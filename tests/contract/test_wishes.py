"""Listings that a person asks for while a daemon has the state to itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from s3flow.errors import StateError
from s3flow.state.opening import open_wishes
from s3flow.state.wishes import FileWishes
from tests.contract.state_kit import FLOW, Home, home

__all__ = ["home"]
NAME = FLOW.name


async def test_what_was_asked_for_is_given_once(home: Home) -> None:
    daemon = await home.open()  # it has the state to itself
    await daemon.open_flow(FLOW)
    person, listener = open_wishes(home.address), open_wishes(home.address)
    assert await listener.take(NAME) == []
    await person.put(NAME, "one")
    await person.put(NAME, None)
    await person.put("another", "two")
    assert set(await listener.take(NAME)) == {"one", None}
    assert await listener.take(NAME) == []
    assert await listener.take("another") == ["two"]


async def test_names_that_begin_alike_stay_apart(home: Home) -> None:
    await (await home.open()).open_flow(FLOW)
    wishes = open_wishes(home.address)
    await wishes.put(f"{NAME}2", "one")
    await wishes.put(f"{NAME}0", None)
    assert await wishes.take(NAME) == []
    assert await wishes.take(f"{NAME}2") == ["one"]
    assert await wishes.take(f"{NAME}0") == [None]


async def test_a_wish_that_cannot_be_read_asks_for_everything(home: Home) -> None:
    wishes = open_wishes(home.address)
    if not isinstance(wishes, FileWishes):
        pytest.skip("a row of a table is written whole")
    path = wishes._path(NAME)
    path.write_text('"one"\n{broken\n')
    assert await wishes.take(NAME) == ["one", None]
    path.mkdir()
    (path.with_name(f"{path.name}.taken")).write_text("")
    with pytest.raises(StateError, match="asks for a listing"):
        await wishes.take(NAME)


async def test_a_wish_is_not_lost_when_the_others_are_taken_in_that_moment(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    wishes, opening, times = open_wishes(home.address), Path.open, 0
    if not isinstance(wishes, FileWishes):
        pytest.skip("a row of a table is written at once")

    def opened(path: Path, *how: Any, **more: Any) -> Any:
        nonlocal times
        file = opening(path, *how, **more)
        times += 1
        if times == 1:
            path.unlink()  # the daemon has read it
        return file

    monkeypatch.setattr(Path, "open", opened)
    await wishes.put(NAME, "one")
    monkeypatch.undo()
    assert await wishes.take(NAME) == ["one"]

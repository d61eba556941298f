"""What a state calls itself: made once, kept by it, and nobody else's."""

from __future__ import annotations

from pathlib import Path

from s3flow.state.address import SqliteAddress
from s3flow.state.opening import open_state
from tests.contract.state_kit import Home, home

__all__ = ["home"]


async def test_it_stays(home: Home) -> None:
    first = await (await home.open()).identity()
    assert first
    assert await (await home.open()).identity() == first
    await home.close()
    reading = await open_state(home.address, read_only=True)
    assert await reading.identity() == first
    await reading.close()


async def test_each_state_has_its_own(home: Home, tmp_path: Path) -> None:
    other = Home(SqliteAddress(tmp_path / "other.db"))
    assert await (await home.open()).identity() != await (await other.open()).identity()
    await other.close()


async def test_who_may_only_read_gives_it_none(home: Home) -> None:
    await home.open()
    await home.close()
    reading = await open_state(home.address, read_only=True)
    assert await reading.identity() == ""
    await reading.close()

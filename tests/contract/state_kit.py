"""A state of each kind, and what its tests do with it."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable

import pytest

from s3flow.model import Change, Discovered, Flow, Listed, PageChanges, Place, Scan, State, Transfer
from s3flow.ports import StateStore
from s3flow.state.address import SqliteAddress, StateAddress
from s3flow.state.opening import open_state
from tests import mariadb

FLOW = Flow("documents", Place("src", "bucket", b"in/"), Place("dst", "other", b"out/"))

ODD_KEYS = sorted(
    [
        b"A.txt",
        b"a.txt",
        b"a",
        b"a ",
        b"a  ",
        b"a\x00",
        b"a\x00b",
        b"a//b",
        b"./a",
        b"a/",
        b"%25",
        b"'; DROP TABLE objects; --",
        "caf\u00e9".encode(),
        "cafe\u0301".encode(),
        "CAF\u00c9".encode(),
        "\U0001f4a9".encode(),
        "\u00df".encode(),
        b"ss",
        b"\xff\xfe",
        b"\x80",
        b"x" * 1024,
        b"x" * 1023 + b"y",
    ]
)


class FakeClock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


Where = Callable[[pytest.FixtureRequest], StateAddress]


def _sqlite(request: pytest.FixtureRequest) -> StateAddress:
    return SqliteAddress(request.getfixturevalue("tmp_path") / "state.db")


def _mysql(request: pytest.FixtureRequest) -> StateAddress:
    schemas: mariadb.Schemas = request.getfixturevalue("mysql_schemas")
    return schemas.make()


PLACES: dict[str, Where] = {"sqlite": _sqlite, "mysql": _mysql}


class Home:
    """A place where the state lives on while processes come and go."""

    def __init__(self, address: StateAddress) -> None:
        self.clock = FakeClock()
        self.address = address
        self._state: StateStore | None = None

    async def open(self) -> StateStore:
        """Open the state anew, as the next process does."""
        await self.close()
        self._state = await open_state(self.address, clock=self.clock)
        return self._state

    async def close(self) -> None:
        if self._state is not None:
            await self._state.close()
            self._state = None


@pytest.fixture(params=PLACES)
async def home(request: pytest.FixtureRequest) -> AsyncIterator[Home]:
    place = Home(PLACES[request.param](request))
    yield place
    await place.close()


@pytest.fixture
async def state(home: Home) -> StateStore:
    opened = await home.open()
    await opened.open_flow(FLOW)
    return opened


def listed(key: bytes, size: int = 10, etag: str = "e1") -> Listed:
    return Listed(key, size, etag, 1_600_000_000_123, "STANDARD")


def found(key: bytes, state: State = State.DISCOVERED, size: int = 10, **more: str) -> Discovered:
    return Discovered(listed(key, size), state, **more)


async def merge(
    state: StateStore,
    *new: Discovered,
    flow: str = "documents",
    bucket: str = "bucket",
    changed: list[tuple[int, Discovered]] | None = None,
    vanished: list[int] | None = None,
    done: bool = False,
) -> Scan:
    """Apply a page to a bucket's only range: one scan sees many such pages."""
    scan, _ = await state.begin_scan(flow)
    before = max((it.cursor for it in await state.ranges(scan, bucket)), default=b"")
    cursor = max([item.entry.key for item in new] + [before + b"\x00"])
    page = PageChanges(bucket, cursor, done, len(new), sum(item.entry.size for item in new))
    page.new, page.changed, page.vanished = list(new), changed or [], vanished or []
    await state.apply_page(scan, page)
    return scan


async def claim_keys(state: StateStore, limit: int = 100, flow: str = "documents") -> list[bytes]:
    return [transfer.key for transfer in await state.claim(flow, limit)]


async def counts(state: StateStore, flow: str = "documents") -> dict[tuple[State, str], int]:
    lines: Counter[tuple[State, str]] = Counter()
    for line in await state.totals(flow):
        lines[line.state, line.reason] += line.objects
    return dict(lines)


async def row_id(state: StateStore, key: bytes, bucket: str = "bucket") -> int:
    (row,) = [row for row in await state.rows("documents", bucket, b"", key) if row.key == key]
    return row.id


async def fail(state: StateStore, transfer: Transfer, reason: str) -> None:
    await state.save([Change(transfer, State.FAILED, reason, f"{reason} happened")])

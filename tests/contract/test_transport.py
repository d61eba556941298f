"""A state is carried from one database to another and back, and is the same; or nobody opens it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from hashlib import sha256
from itertools import cycle

import pytest

from s3flow.errors import StateError
from s3flow.model import Change, PageChanges, Sample, State, Verdict
from s3flow.records import Hold
from s3flow.state import sql, transport
from s3flow.state.address import StateAddress
from s3flow.state.audit import Check
from s3flow.state.opening import open_holds, open_state, schema_version
from s3flow.state.queries import fetch
from s3flow.state.steps import Bulk, Steps
from s3flow.state.store import SqlState
from s3flow.state.transport import BadExport, exported, import_state
from tests.contract.audit_kit import verified
from tests.contract.state_kit import FLOW, ODD_KEYS, PLACES, Home, found, home, merge

__all__ = ["home"]  # a fixture
Make = Callable[[str], StateAddress]


@pytest.fixture
def make(request: pytest.FixtureRequest, tmp_path: object) -> Make:
    """Give what makes an empty state of a kind."""

    def made(kind: str) -> StateAddress:
        address = PLACES[kind](request)
        if kind == "sqlite":
            count = len(list(address.path.parent.glob("*.db")))  # type: ignore[union-attr]
            return type(address)(address.path.with_name(f"state-{count}.db"))  # type: ignore[union-attr,call-arg]
        return address

    return made


@asynccontextmanager
async def opened(address: StateAddress, *, partial: bool = False) -> AsyncIterator[SqlState]:
    state = await open_state(address, partial=partial)
    try:
        yield state
    finally:
        await state.close()


async def filled(home: Home) -> None:
    """Leave a state in which every table has rows."""
    state = await home.open()
    assert isinstance(state, SqlState)
    await state.open_flow(FLOW)
    await state.open_routes("documents", "fingerprint")
    await state.keep_verdicts(
        [Verdict("documents", "bucket", "objects", "streamed", "denied: caf\u00e9", 5.25, 0.0)]
    )
    scan = await merge(state, *[found(key) for key in ODD_KEYS])
    await merge(state, found(b"x", State.SKIPPED, reason="filtered"), bucket="b\u00fccket")
    one, two, three, four, *_ = await state.claim("documents", 99)
    await state.note_restores([one, two], 5)
    home.clock.now += 1.125
    await state.save(
        [
            verified(one, version_id="v1", dropped=("tags", "acl")),
            Change(two, State.FAILED, "broken", "it \u2603 broke\n'\"\\"),
            Change(three, State.FAILED, "gone", upload_id="up-3"),
            Change(four, State.TRANSFERRING, upload_id="up-4", part_size=5, attempts=2),
        ]
    )
    await state.sample("documents", Sample(home.clock.now, 5, 10**15))
    listing = PageChanges("b\u00fccket", b"y", False, 1, 7, classes={"GLACIER": (1, 7)})
    await state.apply_page(scan, listing)
    await state.finish_scan(scan)
    await state.note_unlisted("documents", "bucket", "access_denied", "for now")
    await merge(state, found(b"zz", size=50 * 1000**4))
    forgotten = FLOW.__class__("gone", FLOW.source, FLOW.target)
    await state.open_flow(forgotten)
    await merge(state, found(b"g", State.SKIPPED, reason="filtered"), flow="gone")
    await state.forget("gone")
    await home.close()


async def export(address: StateAddress) -> list[str]:
    async with opened(address) as state:
        hold = await open_holds(address).get("documents")
        held = {} if hold is None else {"documents": hold}
        text = "".join([piece async for piece in exported(state.database, held)])
    return text.splitlines(keepends=True)


async def bring(address: StateAddress, lines: list[str]) -> dict[str, int]:
    async with opened(address, partial=True) as state:
        return await import_state(state.database, iter(lines), open_holds(address).put)


@pytest.mark.parametrize("kind", ["sqlite", "mysql"])
async def test_deletes_that_are_held_stay_held(home: Home, make: Make, kind: str) -> None:
    await filled(home)
    hold = Hold("too many were gone", 1_700_000_000.5, tripped=True)
    await open_holds(home.address).put("documents", hold)
    there = make(kind)
    await bring(there, await export(home.address))
    assert await open_holds(there).get("documents") == hold
    back = make("mysql")
    await bring(back, await export(there))
    assert await open_holds(back).get("documents") == hold
    assert await open_holds(there).drop("documents")
    assert await open_holds(there).get("documents") is None


@pytest.mark.parametrize("flow", ["", "../x", "a/b", "a\0b"])
async def test_no_file_is_made_by_names_that_flows_cannot_have(
    home: Home, make: Make, flow: str
) -> None:
    await filled(home)
    lines = await export(home.address)
    row = json.dumps(["meta", f"hold/{flow}", "{}"]) + "\n"
    with pytest.raises(BadExport, match="no flow's name"):
        await bring(make("sqlite"), closed([lines[0], row, *lines[1:-1]]))


@pytest.mark.parametrize("way", [("sqlite", "sqlite"), ("mysql", "sqlite"), ("sqlite", "mysql")])
async def test_there_and_back_again(home: Home, make: Make, way: tuple[str, str]) -> None:
    await filled(home)
    first = await export(home.address)
    tables = {json.loads(line)[0] for line in first[1:-1]}
    assert tables == set(transport.BY_NAME)
    lines = first
    for kind in way:
        address = make(kind)
        counts = await bring(address, lines)
        assert sum(counts.values()) == len(lines) - 2
        lines = await export(address)
        # A table may give its rows in another order.
        assert sorted(lines[:-1]) == sorted(first[:-1])
    async with opened(address) as state:
        for flow, head in (await state.audited()).items():
            check = Check()
            check.rows(await state.audit(flow))
            assert check.end(head) is None
        records = await state.records("documents", "bucket")
        assert [it.key for it in records] == sorted([*ODD_KEYS, b"zz"])
    again = await home.open()
    assert records == await again.records("documents", "bucket")


async def test_work_goes_on_where_it_was(home: Home, make: Make) -> None:
    await filled(home)
    lines = await export(home.address)
    address = make("mysql")
    await bring(address, lines)
    before = await home.open()
    async with opened(address) as after:
        await after.open_flow(FLOW)
        assert await after.totals("documents") == await before.totals("documents")
        assert await after.last_scan("documents") == await before.last_scan("documents")
        assert await after.samples("documents") == await before.samples("documents")
        assert await after.open_routes("documents", "fingerprint")
        left = await before.claim("documents", 99)
        assert left
        assert await after.claim("documents", 99) == left
        await merge(after, found(b"zzz"))
        (new,) = await after.claim("documents", 99)
        await after.save([verified(new)])
        assert (await after.audit("documents"))[-1].key == b"zzz"


async def test_only_an_empty_state_is_filled(home: Home, make: Make) -> None:
    await filled(home)
    lines = await export(home.address)
    with pytest.raises(StateError, match="not empty"):
        await bring(home.address, lines)
    assert await export(home.address) == lines


async def test_an_import_that_was_cut_off_is_opened_by_nobody(
    home: Home, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    await filled(home)
    lines = await export(home.address)
    address = make("mysql" if "sqlite" in type(home.address).__name__.lower() else "sqlite")
    monkeypatch.setattr(transport, "ROWS", 3)

    def broken() -> Iterator[str]:
        yield from lines[:-5]
        raise StateError("the disk is gone")

    async with opened(address, partial=True) as state:
        with pytest.raises(StateError, match="the disk is gone"):
            await import_state(state.database, broken(), open_holds(address).put)
        assert await state.database.read(lambda: fetch("SELECT count(*) FROM objects"))
    for read_only in (False, True):
        with pytest.raises(StateError, match="import` again"):
            await open_state(address, read_only=read_only)
    await bring(address, lines)
    assert sorted((await export(address))[:-1]) == sorted(lines[:-1])


@pytest.mark.parametrize(
    "spoil",
    [
        lambda lines: lines[:-1],
        lambda lines: lines[:-3] + lines[-1:],
        lambda lines: [line.replace("v1", "v2") for line in lines],
        lambda lines: [*lines, lines[-2]],
        lambda lines: [*lines[:-1], lines[-1].rstrip("\n")],
        lambda lines: [lines[0], "nonsense\n", *lines[1:]],
        lambda lines: [lines[0], '["sqlite_master",1]\n', *lines[1:]],
        lambda lines: [lines[0], '["flows",1]\n', *lines[1:]],
        lambda lines: [lines[0].replace("s3flow-state/1", "s3flow-state/9"), *lines[1:]],
        lambda lines: [lines[0].replace('"etag"', '"etag","tomorrow"'), *lines[1:]],
        lambda lines: ["{}\n"],
        lambda lines: [],
    ],
)
async def test_what_is_no_whole_export_is_refused(
    home: Home, make: Make, spoil: Callable[[list[str]], list[str]]
) -> None:
    await filled(home)
    lines = await export(home.address)
    address = make("sqlite")
    with pytest.raises(BadExport):
        await bring(address, spoil(lines))
    with pytest.raises(StateError, match="import` again"):
        await open_state(address)
    await bring(address, lines)


NONSENSE: list[object] = [
    None,
    1.5,
    10**30,
    -1,
    "x",
    "\ud800",
    {"hex": "zz"},
    {"hex": 5},
    {},
    [[]],
    float("inf"),
]


def closed(lines: list[str]) -> list[str]:
    """Give lines with an end that is right for them."""
    digest = sha256("".join(lines).encode()).hexdigest()
    return [*lines, json.dumps(["end", len(lines) - 1, digest]) + "\n"]


@pytest.mark.parametrize("kind", ["sqlite", "mysql"])
async def test_a_file_that_was_made_up_is_refused_in_words(
    home: Home, make: Make, kind: str
) -> None:
    """Its digest is right, for anybody can make one: what it says must do no harm all the same."""
    await filled(home)
    lines = (await export(home.address))[:-1]
    head = json.loads(lines[0])
    heads = [{**head, "tables": it} for it in (*NONSENSE, {"meta": 5}, {"meta": [["name"]]})]
    files = [[json.dumps(it) + "\n", *lines[1:]] for it in heads] + [["[" * 50_000]]
    files += [[*lines[:2], "[" * 50_000 + "\n", *lines[2:]]]
    # The last line of each table, with nonsense in each of its places.
    for at in {json.loads(line)[0]: at for at, line in enumerate(lines) if at}.values():
        row = json.loads(lines[at])
        for place, bad in zip(range(1, len(row)), cycle(NONSENSE), strict=False):
            spoilt = json.dumps([*row[:place], bad, *row[place + 1 :]]) + "\n"
            files.append([*lines[:at], spoilt, *lines[at + 1 :]])
    refused = 0
    address = make(kind)
    async with opened(address, partial=True) as state:
        for file in files:
            await state.database.write(lambda: _rows(sql.SET_META, ("importing", "1")))
            try:
                await import_state(state.database, iter(closed(file)), open_holds(address).put)
            except StateError:
                refused += 1
    assert refused > len(files) / 2


async def test_totals_that_do_not_add_up_are_refused(home: Home, make: Make) -> None:
    await filled(home)
    async with opened(home.address) as state:
        await state.database.write(
            lambda: _rows("INSERT INTO totals VALUES {rows}", (1, 1, 10, "x", "", "", 1, 5))
        )
    lines = await export(home.address)
    with pytest.raises(BadExport, match="totals"):
        await bring(make("sqlite"), lines)


async def test_what_was_restored_is_never_read_at_once(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There may be as many restores as objects."""
    monkeypatch.setattr(transport, "ROWS", 10)
    await filled(home)
    times = [(1, number, 1, at, 7) for number in (*range(3, 45), 900, 2**40) for at in (6, 8)]
    async with opened(home.address) as state:
        await state.database.write(lambda: _rows(sql.ADD_RESTORE, *times))
        pieces = [piece async for piece in exported(state.database, {})]
    counts = [piece.count('["restores",') for piece in pieces]
    assert sum(counts) == len(times) + 2
    assert max(counts) <= 20


def _rows(statement: str, *rows: tuple[object, ...]) -> Steps[None]:
    yield Bulk(statement, rows)


async def test_every_column_is_carried_along(home: Home) -> None:
    """A column that the schema gets some day must not be forgotten on the way."""
    await home.open()
    await home.close()
    async with opened(home.address) as state:
        mysql = not hasattr(state.database, "path")
        for table in transport.TABLES:
            if mysql:
                statement = (
                    "SELECT column_name FROM information_schema.columns"
                    f" WHERE table_schema = DATABASE() AND table_name = '{table.name}'"
                    " AND extra NOT LIKE '%GENERATED%'"
                )
            else:
                statement = f"SELECT name FROM pragma_table_info('{table.name}')"
            rows = await state.database.read(lambda: fetch(statement))  # noqa: B023
            assert {str(name) for (name,) in rows} == set(table.columns), table.name
        version, newest = await schema_version(home.address)
        assert version == newest > 0

"""What the state asks of the loop with MySQL: its logic runs there, where SQLite's has a thread."""

from __future__ import annotations

from dataclasses import replace

from s3flow.model import Change, Discovered, Flow, Listed, PageChanges, Place, State
from s3flow.state import sql
from s3flow.state.mysql.dialect import STATEMENTS
from s3flow.state.opening import open_state
from tests import mariadb
from tests.blocks import Blocks

FLOW = Flow("documents", Place("src", "bucket", b""), Place("dst", "other", b""))
PAGE = 1_000


async def test_to_forget_a_slice_of_a_flow_sorts_nothing_of_the_rest(
    mysql_schemas: mariadb.Schemas,
) -> None:
    address = mysql_schemas.make()
    state = await open_state(address)
    for name, count in (("documents", PAGE), ("others", 3)):
        await state.open_flow(replace(FLOW, name=name))
        scan, _ = await state.begin_scan(name)
        new = [
            Discovered(Listed(b"%08d" % number, 4096, "e" * 32, 0, "STANDARD"))
            for number in range(count)
        ]
        page = PageChanges("bucket", new[-1].entry.key, done=True, listed=count, listed_bytes=0)
        page.new = new
        await state.apply_page(scan, page)
    drop = STATEMENTS[sql.DROP_OBJECTS].replace("?", "1")
    told = mysql_schemas.explain(drop, address.database)
    assert told
    assert "filesort" not in str(told)
    assert await state.forget("documents")
    assert len(await state.rows("others", "bucket", b"", None)) == 3
    await state.close()
    assert mysql_schemas.query("SELECT count(*) FROM objects", address.database)[0][0] == 3


async def test_no_batch_holds_the_loop(
    mysql_schemas: mariadb.Schemas, never_blocked: Blocks
) -> None:
    state = await open_state(mysql_schemas.make())
    await state.open_flow(FLOW)
    scan, _ = await state.begin_scan("documents")
    for start in range(0, 4 * PAGE, PAGE):
        new = [
            Discovered(Listed(b"%08d" % number + b"x" * 500, 4096, "e" * 32, 0, "STANDARD"))
            for number in range(start, start + PAGE)
        ]
        last = new[-1].entry.key
        page = PageChanges("bucket", last, done=False, listed=PAGE, listed_bytes=PAGE, new=new)
        await state.apply_page(scan, page)
    assert len(await state.rows("documents", "bucket", b"", None)) == 2_500
    for _ in range(4):
        claimed = [*await state.claim("documents", 500), *await state.claim("documents", 500)]
        changes = [
            Change(it, State.VERIFIED, method="put", proof="etag", target_etag="e" * 32)
            for it in claimed
        ]
        await state.save(changes)
    assert [total.objects for total in await state.totals("documents")] == [4 * PAGE]
    await state.close()

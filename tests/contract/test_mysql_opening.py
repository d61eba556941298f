"""Opening: what the server must be, whose schema it is, and messages that say what to do."""

from __future__ import annotations

import asyncio
import re
import socket
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import uvloop

from s3flow.errors import StateAway, StateEmpty, StateError
from s3flow.model import Discovered, Flow, Listed, PageChanges, Place
from s3flow.state import sql
from s3flow.state.address import MySqlAddress
from s3flow.state.mysql import dialect, literals, session
from s3flow.state.mysql.schema import split
from s3flow.state.opening import open_state
from tests import mariadb, servers
from tests.contract.mysql_kit import count, make_counter, opened
from tests.e2e.certificates import authority

FLOW = Flow("documents", Place("src", "bucket", b""), Place("dst", "other", b""))
SECRET = "s3cr3t-pa55 w/ö"


@pytest.fixture
def address(mysql_schemas: mariadb.Schemas) -> MySqlAddress:
    return mysql_schemas.make()


async def refusal(address: MySqlAddress, *, read_only: bool = False) -> str:
    with pytest.raises(StateError) as caught:
        await open_state(address, read_only=read_only)
    assert SECRET not in str(caught.value)
    assert SECRET not in repr(address)
    return str(caught.value)


# --- who asks whom ------------------------------------------------------------------------------


async def test_each_refusal_names_its_remedy(
    mysql_schemas: mariadb.Schemas, address: MySqlAddress
) -> None:
    known = f"known{address.database[-12:]}"
    mysql_schemas.query(f"CREATE USER {known}@'%' IDENTIFIED BY '{SECRET}'")
    try:
        user = replace(address, user=known, password=SECRET)
        assert f"GRANT ALL ON {address.database}.*" in await refusal(user)
        mysql_schemas.query(f"GRANT ALL ON {address.database}.* TO {known}@'%'")
        await (await open_state(user)).close()
        wrong = replace(user, password=SECRET + "x")
        assert "check user and password in the state's address" in await refusal(wrong)
    finally:
        mysql_schemas.query(f"DROP USER {known}@'%'")
    missing = replace(address, database="no_such_schema")
    assert "CREATE DATABASE no_such_schema" in await refusal(missing)
    nobody = replace(address, port=servers.free_port(), password=SECRET)
    assert "see that the server runs and is reachable" in await refusal(nobody)
    with pytest.raises(StateAway):  # supervisors try again: it may not have started yet
        await open_state(nobody)
    nowhere = replace(address, host="nowhere.invalid", password=SECRET)
    assert "host and port in the state's address are right" in await refusal(nowhere)


async def test_a_server_that_says_nothing_is_not_waited_for_for_ever() -> None:
    with socket.create_server((servers.HOST, 0)) as silent:
        mute = MySqlAddress(servers.HOST, silent.getsockname()[1], user="u", connect_timeout=0.2)
        assert "does not answer; see that the server runs" in await refusal(mute)


# --- which server -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "read"),
    [
        ("8.0.36", ("MySQL", (8, 0, 36))),
        ("8.4.0-commercial", ("MySQL", (8, 4, 0))),
        ("10.11.6-MariaDB-0+deb12u1", ("MariaDB", (10, 11, 6))),
        ("5.5.5-10.6.12-MariaDB-log", ("MariaDB", (10, 6, 12))),
    ],
)
def test_servers_say_what_they_are(said: str, read: tuple[str, tuple[int, int, int]]) -> None:
    assert session.flavour_of(said) == read


async def test_an_old_server_is_refused(
    address: MySqlAddress, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "OLDEST", {"MySQL": (99, 0, 0), "MariaDB": (99, 0, 0)})
    assert re.search(r"is too old to keep the state: \w+ 99\.0\.0 or newer", await refusal(address))


@pytest.fixture(scope="module")
def plain_server() -> Iterator[mariadb.MariaDb]:
    """Give a server without TLS that takes small packets only."""
    with mariadb.running("--max-allowed-packet=1M", "--skip-ssl") as one:
        yield one


@pytest.fixture(scope="module")
def certified() -> Iterator[tuple[mariadb.MariaDb, Path]]:
    """Give a server with TLS, and its authority's file."""
    # Not below pytest's own folder, which only its user may enter: the server may run as another.
    with tempfile.TemporaryDirectory(prefix="s3flow-tls-") as name:
        folder, pair = Path(name), Path(name) / "server.pem"
        ca_file, _ = authority(folder, "localhost")
        folder.chmod(0o755)
        pair.chmod(0o644)
        with mariadb.running(f"--ssl-cert={pair}", f"--ssl-key={pair}") as one:
            yield one, ca_file


async def test_small_packets_are_refused(plain_server: mariadb.MariaDb) -> None:
    message = await refusal(mariadb.Schemas(plain_server.address("mysql")).make())
    assert "max_allowed_packet is 1,048,576 bytes: set it to at least 4M" in message


async def test_a_socket_of_this_machine(plain_server: mariadb.MariaDb) -> None:
    schemas = mariadb.Schemas(plain_server.address("mysql"))
    schemas.query("SET GLOBAL max_allowed_packet = 16777216")
    address = replace(schemas.make(), host="", unix_socket=str(plain_server.socket))
    state = await open_state(address)
    await state.open_flow(FLOW)
    await state.close()
    assert str(plain_server.socket) in str(address)
    missing = replace(address, unix_socket=f"{plain_server.socket}.none")
    assert "see that the server runs" in await refusal(missing)


async def test_without_tls_none_is_made_up(plain_server: mariadb.MariaDb) -> None:
    schemas = mariadb.Schemas(plain_server.address("mysql"))
    schemas.query("SET GLOBAL max_allowed_packet = 16777216")
    address = schemas.make(tls="required")
    assert "the server has no TLS" in await refusal(address)
    assert "the server has no TLS" in await refusal(replace(address, tls="unverified"))
    await (await open_state(replace(address, tls="preferred"))).close()


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_tls(certified: tuple[mariadb.MariaDb, Path], loop: object, tmp_path: Path) -> None:
    server, ca_file = certified
    schemas = mariadb.Schemas(server.address("mysql"))
    address = schemas.make()
    schemas.query("CREATE OR REPLACE USER safe@'%' IDENTIFIED BY 'word' REQUIRE SSL")
    schemas.query("GRANT ALL ON *.* TO safe@'%'")
    safe = replace(address, user="safe", password="word")
    stranger, _ = authority(tmp_path)

    async def use(**more: object) -> None:
        state = await open_state(replace(safe, **more))  # type: ignore[arg-type]
        await state.open_flow(FLOW)
        assert await state.flow_names() == ["documents"]
        await state.close()

    async def main() -> None:
        for tls in ("unverified", "preferred"):
            await use(tls=tls)
        await use(tls="required", ca_file=ca_file)
        await use(tls="required", ca_file=ca_file, host="localhost")
        unknown = await refusal(replace(safe, tls="required", ca_file=stranger))
        assert "TLS failed" in unknown
        assert "name the authority that signed the server's certificate" in unknown
        assert "check user and password" in await refusal(replace(safe, tls="off"))
        nothing = replace(safe, tls="required", ca_file=tmp_path / "none.pem")
        assert "CA file" in await refusal(nothing)

    with asyncio.Runner(loop_factory=loop) as runner:  # type: ignore[arg-type]
        runner.run(main())
    schemas.drop()


async def test_the_session_is_ours_whatever_the_server_prefers(
    plain_server: mariadb.MariaDb,
) -> None:
    schemas = mariadb.Schemas(plain_server.address("mysql"))
    schemas.query("SET GLOBAL max_allowed_packet = 16777216")
    schemas.query("SET GLOBAL sql_mode = 'ANSI_QUOTES,NO_BACKSLASH_ESCAPES,PIPES_AS_CONCAT'")
    schemas.query("SET GLOBAL autocommit = 0")
    try:
        state = await open_state(schemas.make())
        odd = Flow("documents", Place("src", "a\\'b", b""), Place("dst", '"\\', b"\\"))
        await state.open_flow(odd)
        await state.open_flow(odd)  # the same as on record
        await state.close()
    finally:
        schemas.query("SET GLOBAL sql_mode = DEFAULT")
        schemas.query("SET GLOBAL autocommit = 1")


async def test_a_server_that_may_lose_commits_is_named(
    address: MySqlAddress, caplog: pytest.LogCaptureFixture
) -> None:
    await (await open_state(address)).close()
    assert "innodb_flush_log_at_trx_commit = 0" in caplog.text


# --- whose schema -------------------------------------------------------------------------------


async def test_nothing_has_run_yet(address: MySqlAddress) -> None:
    with pytest.raises(StateEmpty, match="nothing has run yet"):
        await open_state(address, read_only=True)


async def test_another_programs_tables_are_left_alone(
    mysql_schemas: mariadb.Schemas, address: MySqlAddress
) -> None:
    mysql_schemas.query("CREATE TABLE flows (water INT)", address.database)
    assert "give s3flow a schema of its own" in await refusal(address)
    assert mysql_schemas.query("SHOW TABLES", address.database) == (("flows",),)


async def test_tables_of_other_names_may_be_there(
    mysql_schemas: mariadb.Schemas, address: MySqlAddress
) -> None:
    make_counter(mysql_schemas, address)
    async with opened(address) as database:
        assert await database.write(count) == 1


async def test_versions(mysql_schemas: mariadb.Schemas, address: MySqlAddress) -> None:
    await (await open_state(address)).close()
    newest = len(sql.migrations("mysql"))

    def note(version: int) -> None:
        mysql_schemas.query(
            f"UPDATE meta SET value = '{version}' WHERE name = 'version'", address.database
        )

    note(newest + 1)
    assert "was written by a newer s3flow" in await refusal(address)
    assert "was written by a newer s3flow" in await refusal(address, read_only=True)
    note(newest - 1)
    assert "has the older schema" in await refusal(address, read_only=True)
    await (await open_state(address)).close()
    await (await open_state(address, read_only=True)).close()


async def test_an_upgrade_that_was_cut_off_goes_on(
    mysql_schemas: mariadb.Schemas, address: MySqlAddress
) -> None:
    statements = [it for script in sql.migrations("mysql") for it in split(script)]
    for done in range(1, len(statements), 4):
        for statement in statements[:done]:
            mysql_schemas.query(statement, address.database)
        await (await open_state(address)).close()
        mysql_schemas.query(f"DROP DATABASE {address.database}")
        mysql_schemas.query(f"CREATE DATABASE {address.database}")


async def test_another_engine_is_refused(
    mysql_schemas: mariadb.Schemas, address: MySqlAddress
) -> None:
    await (await open_state(address)).close()
    mysql_schemas.query("ALTER TABLE samples ENGINE=MyISAM", address.database)
    assert "ALTER TABLE samples ENGINE=InnoDB" in await refusal(address)


# --- what is found, and how ---------------------------------------------------------------------


@pytest.fixture
async def crowded(mysql_schemas: mariadb.Schemas, address: MySqlAddress) -> MySqlAddress:
    """Give a schema with 20,000 finished rows, and a pending, a waiting and an interrupted one."""
    state = await open_state(address)
    await state.open_flow(FLOW)
    scan, _ = await state.begin_scan("documents")
    new = [Discovered(Listed(b"%d" % n, 1, "e", 0, "")) for n in range(3)]
    await state.apply_page(
        scan, PageChanges("bucket", b"3", done=True, listed=3, listed_bytes=3, new=new)
    )
    await state.close()
    mysql_schemas.query(
        "INSERT INTO objects (id, flow_id, bucket_id, object_key, size, etag, modified, storage_class,"
        " state, message, target_etag, discovered_at, updated_at)"
        " WITH RECURSIVE n AS (SELECT 10 AS i UNION ALL SELECT i + 1 FROM n WHERE i < 999)"
        " SELECT a.i * 1000 + b.i, 1, 1, CONCAT('done', a.i, '/', b.i), 1, 'e', 0, '', 10, '', 'e', 0, 0"
        " FROM n AS a JOIN n AS b WHERE a.i < 30",
        address.database,
    )
    mysql_schemas.query("UPDATE objects SET retry_at = 5 WHERE id = 2", address.database)
    mysql_schemas.query("UPDATE objects SET upload_id = 'u' WHERE id = 3", address.database)
    mysql_schemas.query("ANALYZE TABLE objects", address.database)
    return address


async def test_work_is_found_without_looking_at_what_is_done(
    mysql_schemas: mariadb.Schemas, crowded: MySqlAddress
) -> None:
    lookups = {
        dialect.as_arrays(sql.CLAIM_FRESH): (1, 0, 500),
        dialect.as_arrays(sql.CLAIM_INTERRUPTED): (1, 9, 500),
        dialect.as_arrays(sql.CLAIM_WAITING): (1, 9, 500),
        dialect.as_arrays(sql.CLAIM_STRAYED): (1, 9, 500),
        dialect.statement(sql.UPLOADS): (1,),
        dialect.statement(sql.WAITING): (1, 500),
        dialect.statement(sql.FAILED_IDS): (1, 0, None, None),
    }
    for lookup, values in lookups.items():
        text = literals.filled(lookup, values)
        [plan] = mysql_schemas.explain(text, crowded.database)
        key, rows, extra = plan["key"], plan["rows"], plan["Extra"] or ""
        assert key in {"objects_work", "objects_due"}, lookup
        assert int(rows) < 10, lookup
        assert "filesort" not in extra, lookup
        assert "temporary" not in extra, lookup


async def test_rows_are_read_in_the_order_of_their_index(
    mysql_schemas: mariadb.Schemas, crowded: MySqlAddress
) -> None:
    text = literals.filled(dialect.as_arrays(sql.ROWS), (1, 1, b"done10/", b"done12/", 500))
    [plan] = mysql_schemas.explain(text, crowded.database)
    assert plan["key"] == "objects_by_key"
    assert "filesort" not in (plan["Extra"] or "")


async def test_what_waits_is_found_among_what_is_done(crowded: MySqlAddress) -> None:
    state = await open_state(crowded)
    claimed = await state.claim("documents", 10)
    assert [it.id for it in claimed] == [3, 2, 1]
    await state.close()


async def test_people_see_times_and_keys(
    mysql_schemas: mariadb.Schemas, address: MySqlAddress
) -> None:
    state = await open_state(address, clock=lambda: 1_700_000_000.0)
    await state.open_flow(FLOW)
    scan, _ = await state.begin_scan("documents")
    keys = [b"\xff", "caf\u00e9\U0001f4a9".encode()]
    new = [Discovered(Listed(key, 1, "e", 1_600_000_000_123, "")) for key in sorted(keys)]
    await state.apply_page(
        scan, PageChanges("bucket", b"\xff", done=True, listed=2, listed_bytes=2, new=new)
    )
    await state.close()
    rows = mysql_schemas.query(
        "SELECT flow, bucket, `key`, state, outcome, CAST(modified AS CHAR), CAST(discovered AS CHAR)"
        " FROM inventory ORDER BY `key`",
        address.database,
    )
    told = ("discovered", "pending", "2020-09-13 12:26:40", "2023-11-14 22:13:20")
    assert rows == (
        ("documents", "bucket", "caf\u00e9\U0001f4a9", *told),
        ("documents", "bucket", "hex:FF", *told),
    )
    [outcome] = mysql_schemas.query("SELECT * FROM outcomes", address.database)
    assert (outcome[0], outcome[1], int(outcome[3])) == ("documents", "pending", 2)


async def test_text_goes_in_as_it_is(address: MySqlAddress) -> None:
    texts = [
        "",
        "'",
        "\\",
        "\\'",
        '"',
        "\x00",
        "\x1a",
        "\n",
        "\U0001f4a9",
        "%s ? {rows}",
        " ",
        "a ",
    ]
    async with opened(address) as database:
        for text in texts:

            def work(text: str = text) -> session.Steps[tuple[object, ...]]:
                [row] = yield session.Fetch("SELECT ?, ?, ?", (text, text.encode(), 0.1))
                return tuple(row)

            assert await database.read(work) == (text, text.encode(), 0.1)

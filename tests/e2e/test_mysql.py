"""s3flow with its state in a real MariaDB: killed, left alone by its server, and never at a loss."""

from __future__ import annotations

import json
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator

import pytest

from tests import mariadb
from tests.e2e.conftest import Stage
from tests.e2e.content import digests_of_bucket
from tests.e2e.program import Program, adds_up
from tests.e2e.proxy import Proxy
from tests.e2e.test_daemon import address, ask

OBJECTS = 400
SIZE = 10_000  # bytes
PACE = 700_000  # bytes per second: six seconds for all of them
UNPACED = {"S3FLOW__DAEMON__MAX_BYTES_PER_S": "0"}  # for what is only to end
PASSWORD = "pa55-w0rd-canary"
AWAY = 3.0  # seconds that the server is away


@pytest.fixture(scope="module")
def server() -> Iterator[mariadb.MariaDb]:
    """Give a server that keeps what it has committed when it is killed."""
    with mariadb.running("--innodb-flush-log-at-trx-commit=1") as one:
        yield one


@pytest.fixture
def schemas(server: mariadb.MariaDb) -> Iterator[mariadb.Schemas]:
    made = mariadb.Schemas(server.address("mysql"))
    yield made
    made.drop()


@pytest.fixture
def state(schemas: mariadb.Schemas) -> str:
    """Give the setting of an empty schema, for a user who may do nothing else."""
    made = schemas.make()
    schemas.query(f"CREATE OR REPLACE USER flow@'%' IDENTIFIED BY '{PASSWORD}'")
    schemas.query(f"GRANT ALL ON {made.database}.* TO flow@'%'")
    return f"mysql://flow:{PASSWORD}@{made.host}:{made.port}/{made.database}"


@pytest.fixture
def filled(stage: Stage) -> Proxy:
    """Fill the source; give the proxy that counts what is asked of both ends."""
    for number in range(OBJECTS):
        stage.put(f"docs/{number:04d}", b"%08d" % number + b"x" * (SIZE - 8))
    stage.put("docs/caf\u00e9", b"composed")
    stage.put("docs/cafe\u0301", b"decomposed")
    stage.put("docs/CAF\u00c9", b"upper")
    return stage.proxy()


TOTAL = OBJECTS + 3


def puts(proxy: Proxy) -> Counter[str]:
    """Count how often each object was written."""
    return Counter(request.key for request in tuple(proxy.requests) if request.kind == "put")


def check_all_there(stage: Stage, program: Program) -> None:
    flow = program.flow()
    assert flow["objects"]["verified"] == flow["objects"]["listed"] == TOTAL
    assert adds_up(flow)
    there = digests_of_bucket(stage.theirs, stage.target)
    assert there == digests_of_bucket(stage.ours, stage.source)
    # Each fact once, in a chain that holds: what was committed without an answer was not told again.
    assert f": {TOTAL} rows, intact" in program.run("audit", "verify").out


def secretive(program: Program) -> bool:
    """Say whether nothing that was printed or logged shows the password."""
    files = [path for path in program.folder.glob("run*") if path.is_file()]
    return all(PASSWORD not in path.read_text(errors="replace") for path in files)


def test_killed_at_work_it_goes_on_from_the_server(
    stage: Stage, filled: Proxy, schemas: mariadb.Schemas, state: str
) -> None:
    program = stage.program({"name": "copies"}, state=state, max_bytes_per_s=PACE)
    for reached in (60, 200):
        running = program.start("sync")
        running.until(lambda reached=reached: len(puts(filled)) > reached)
        running.kill()
        assert adds_up(program.flow())
    done = program.run("sync", **UNPACED)
    assert PASSWORD not in done.out + done.err
    check_all_there(stage, program)
    repeated = sum(puts(filled).values()) - TOTAL
    # What was not recorded when it was killed: at most what was in flight and lingered.
    assert repeated < TOTAL / 2
    database = state.rpartition("/")[2]
    [(rows, distinct)] = schemas.query(
        "SELECT COUNT(*), COUNT(DISTINCT object_key) FROM objects WHERE state = 10", database
    )
    assert rows == distinct == TOTAL
    stage.put("docs/later")
    program.run("sync", **UNPACED)
    assert puts(filled)["docs/later"] == 1


def test_commands_ask_the_server(stage: Stage, state: str) -> None:
    stage.put("good")
    stage.put("a//b")
    program = stage.program({"name": "copies", "target": "nas:copy/"}, state=state)
    assert program.flow()["objects"]["listed"] == 0  # nothing has run yet
    program.run("sync", code=1)
    assert "name_refused" in program.run("failures").out
    assert "1 objects will be tried again" in program.run("retry").out
    assert program.flow()["objects"]["pending"] == 1
    program.run("sync", code=1)
    program.run("forget", "copies")
    assert program.flow()["objects"]["listed"] == 0


def test_a_second_daemon_is_refused(stage: Stage, filled: Proxy, state: str) -> None:
    program = stage.program({"name": "copies"}, state=state, max_bytes_per_s=PACE // 2)
    running = program.start("sync")
    running.until(lambda: puts(filled))
    refused = program.run("sync", code=3)
    assert "is in use by pid" in refused.err
    running.wait()
    check_all_there(stage, program)
    assert set(puts(filled).values()) == {1}


Trouble = Callable[[mariadb.MariaDb, mariadb.Schemas], None]


def _stopped(server: mariadb.MariaDb, _: mariadb.Schemas) -> None:
    server.stop()


def _killed(server: mariadb.MariaDb, _: mariadb.Schemas) -> None:
    server.stop(signal.SIGKILL)


def _back(server: mariadb.MariaDb, _: mariadb.Schemas) -> None:
    server.start()


def _read_only(_: mariadb.MariaDb, schemas: mariadb.Schemas) -> None:
    schemas.query("SET GLOBAL read_only = 1")


def _writable(_: mariadb.MariaDb, schemas: mariadb.Schemas) -> None:
    schemas.query("SET GLOBAL read_only = 0")


@pytest.mark.parametrize(
    ("goes", "comes", "word", "workers"),
    [
        (_stopped, _back, "see that the server runs", 1),
        (_killed, _back, "see that the server runs", 2),
        (_read_only, _writable, "the server is read-only", 1),
    ],
)
def test_while_the_server_is_away_all_waits_and_nothing_is_lost_or_doubled(
    stage: Stage,
    filled: Proxy,
    server: mariadb.MariaDb,
    schemas: mariadb.Schemas,
    state: str,
    goes: Trouble,
    comes: Trouble,
    word: str,
    workers: int,
) -> None:
    program = stage.program(
        {"name": "copies", "every": "1s"},
        state=state,
        max_bytes_per_s=PACE,
        listen="127.0.0.1:0",
        workers=workers,
    )
    running = program.start("run")
    url = address(running)
    assert health(url) == ("ok", [])
    running.until(lambda: len(puts(filled)) > 100)
    goes(server, schemas)
    try:
        running.until(lambda: health(url)[0] == "degraded")
        (reason,) = health(url)[1]
        assert word in reason
        time.sleep(AWAY)
        status, answer = ask(f"{url}/api/status")
        assert status == 200
        assert json.loads(answer)["flows"][0]["objects"]["verified"] < TOTAL
        assert ask(f"{url}/readyz")[0] == 200
    finally:
        comes(server, schemas)
    running.until(lambda: program.flow()["objects"]["verified"] == TOTAL)
    running.until(lambda: health(url) == ("ok", []))
    running.stop()
    running.wait()
    check_all_there(stage, program)
    assert set(puts(filled).values()) == {1}
    assert secretive(program)


def test_a_server_that_is_killed_again_and_again(
    stage: Stage, filled: Proxy, server: mariadb.MariaDb, state: str
) -> None:
    program = stage.program({"name": "copies"}, state=state, max_bytes_per_s=PACE)
    running = program.start("sync")
    for reached in (40, 120, 200, 280):
        running.until(lambda reached=reached: len(puts(filled)) > reached)
        server.stop(signal.SIGKILL)
        server.start()
    running.wait()
    check_all_there(stage, program)
    assert set(puts(filled).values()) == {1}


def test_a_stop_while_the_server_is_away_ends(
    stage: Stage, filled: Proxy, server: mariadb.MariaDb, state: str
) -> None:
    program = stage.program(
        {"name": "copies"}, state=state, max_bytes_per_s=PACE, drain_timeout="1s"
    )
    running = program.start("sync")
    running.until(lambda: len(puts(filled)) > 100)
    server.stop()
    try:
        running.stop()
        running.wait(75)
        refused = program.run("status", code=75)
        assert "see that the server runs" in refused.err
        assert PASSWORD not in refused.err
    finally:
        server.start()
    program.run("sync", **UNPACED)
    check_all_there(stage, program)


def test_who_was_taken_over_ends_at_once(
    stage: Stage, filled: Proxy, schemas: mariadb.Schemas, state: str
) -> None:
    program = stage.program({"name": "copies"}, state=state, max_bytes_per_s=PACE)
    running = program.start("sync")
    running.until(lambda: len(puts(filled)) > 60)
    database = state.rpartition("/")[2]
    schemas.query("UPDATE holder SET epoch = epoch + 1, name = 'pid 7 on there'", database)
    ended = running.wait(75)
    assert "was taken over by pid 7 on there" in ended.err
    program.run("sync", **UNPACED)
    check_all_there(stage, program)


def health(url: str) -> tuple[str, list[str]]:
    """Ask how the daemon is: it lives, whatever it waits for."""
    status, answer = ask(f"{url}/healthz")
    assert status == 200
    found = json.loads(answer)
    return found["status"], found["reasons"]

"""kill -9 in small: at the points that every life comes to, and in CI's longer job at all of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import mariadb
from tests.servers import Server
from tests.torture.kill import CREW, MYSQL, Death, run, torment
from tests.torture.programme import Task

ALONE, CREWED = 2, 1  # seeds of worlds without, and with, worker processes
IN_A_FILE = (
    "schema.stepped:9,upload.created:1,part.brought:1,upload.resumed:1,file.renamed:3,~:90,"
    "delete.answered:1,restore.asked:1,stop.drained:1@80,part.brought:2,upload.reaped:1,~:130"
)
ON_A_SERVER = (
    "commit.sent:9,worker.remembered:1,put.done:3,~:100,worker.ended:4,transaction.written:30"
)


def lives(text: str) -> list[Death]:
    return [Death.read(each) for each in text.split(",")]


def test_killed_at_its_points_it_goes_on(ministack_server: Server, tmp_path: Path) -> None:
    found = torment(Task(tmp_path, ALONE), ministack_server, None)
    found.world(ALONE, lives(IN_A_FILE))
    counts = found.judge()
    assert counts["kills"] >= 8
    assert counts["in_flight"] > counts["kills"] / 2
    # What the next life comes to depends on the moment of a death: all points are asked of many worlds.
    never = {point for point in found.deaths.expected() if not found.passed[point]} - set(CREW)
    assert len(never) <= 3, never


def test_killed_with_worker_processes_and_a_server_it_goes_on(
    ministack_server: Server, mysql_schemas: mariadb.Schemas, tmp_path: Path
) -> None:
    found = torment(Task(tmp_path, CREWED, state="mysql"), ministack_server, mysql_schemas)
    found.world(CREWED, lives(ON_A_SERVER))
    counts = found.judge()
    assert counts["kills"] >= 4
    assert counts["in_flight"] > counts["kills"] / 2
    never = {point for point in (*CREW, *MYSQL) if not found.passed[point]}
    assert len(never) <= 1, never


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(("state", "worlds"), [("sqlite", 24), ("mysql", 16)])
def test_two_hundred_kills_break_no_promise(tmp_path: Path, state: str, worlds: int) -> None:
    counts = run(Task(tmp_path, seed=20_261, rounds=worlds, state=state))
    assert counts["worlds"] == worlds
    assert counts["kills"] >= 5 * worlds  # 200 together; a life may end before its point comes

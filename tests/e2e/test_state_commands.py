"""The state is carried elsewhere and brought up to date from the command line."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from pathlib import Path

from s3flow.state import sql
from s3flow.state.database import APPLICATION_ID
from tests.e2e.conftest import Stage
from tests.e2e.gaps import moving
from tests.e2e.program import Program
from tests.mariadb import Schemas

NEWEST = len(sql.migrations("sqlite"))


def elsewhere(program: Program, state: str) -> Program:
    """Give the same program with another state."""
    text = program.config.read_text()
    other = program.config.with_name(f"{len(list(program.folder.glob('*.toml')))}.toml")
    other.write_text(text.replace("sqlite:///state.db", state))
    other.chmod(0o600)
    return Program(other, program.environ)


def test_a_state_moves_to_a_server_and_back_and_nothing_is_copied_again(
    stage: Stage, mysql_schemas: Schemas
) -> None:
    for number in range(30):
        stage.put(f"{number:02}")
    there = mysql_schemas.make()
    program = stage.program({"name": "documents"})
    program.run("sync")
    trail = program.run("audit", "export").out
    first, second = program.folder / "first", program.folder / "second"
    assert "rows of sqlite://" in program.run("state", "export", str(first)).out
    place = there.unix_socket or f"{there.host}:{there.port}"
    login = f"{there.user}:{there.password}@" if there.password else f"{there.user}@"
    server = elsewhere(program, f"mysql://{login}{place}/{there.database}")
    assert "1 flows, 30 objects, 30 audit" in server.run("state", "import", str(first)).out
    stage.put("30")
    server.run("sync")
    assert server.flow()["objects"]["verified"] == 31
    assert server.run("audit", "export").out.startswith(trail)
    assert "documents: 31 rows, intact" in server.run("audit", "verify").out
    server.run("state", "export", str(second))
    back = elsewhere(program, "sqlite:///back.db")
    back.run("state", "import", str(second))
    back.run("sync")
    rows = [json.loads(line) for line in back.run("audit", "export").out.splitlines()]
    assert len(rows) == 31  # nothing was done again
    certificate = back.run("report", "--certificate").out.splitlines()
    assert json.loads(certificate[-1])["complete"] is True


def test_an_old_schema_is_brought_up_to_date(stage: Stage, tmp_path: Path) -> None:
    program = stage.program({"name": "documents"})
    assert f"made with schema {NEWEST}" in program.run("state", "upgrade").out
    assert f"schema {NEWEST} is up to date" in program.run("state", "upgrade").out
    path = program.folder / "old.db"
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.executescript(sql.migrations("sqlite")[0])
        db.execute("INSERT INTO meta VALUES ('version', '1'), ('clean', '1')")
        db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        db.commit()
    old = elsewhere(program, "sqlite:///old.db")
    assert "older schema 1" in old.run("status", code=2).err
    assert f"brought from schema 1 to {NEWEST}" in old.run("state", "upgrade").out
    old.run("status")


def test_what_cannot_be_carried_is_said(stage: Stage) -> None:
    program = stage.program({"name": "documents"})
    answer = program.run("state", "export", "file", code=2)
    assert "there is no state yet" in answer.err
    assert not (program.folder / "state.db").exists()
    assert "cannot read nowhere" in program.run("state", "import", "nowhere", code=2).err
    wrong = program.folder / "wrong"
    wrong.write_text("nothing\n")
    assert "no export of a state" in program.run("state", "import", str(wrong), code=2).err
    assert "run `s3flow state import` again" in program.run("status", code=2).err
    stage.put("a")
    full = elsewhere(program, "sqlite:///full.db")
    full.run("sync")
    full.run("state", "export", "file")
    assert "not empty" in full.run("state", "import", "file", code=2).err
    program.run("state", "import", "file")
    assert program.flow()["objects"]["verified"] == 1


def test_a_hold_on_deletes_goes_along(stage: Stage, mysql_schemas: Schemas) -> None:
    stage.put("a")
    program = stage.program(moving(stage.server, name="documents"))
    program.run("scan")
    program.run("hold", "documents")
    program.run("state", "export", "file")
    there = mysql_schemas.make()
    place = there.unix_socket or f"{there.host}:{there.port}"
    login = f"{there.user}:{there.password}@" if there.password else f"{there.user}@"
    server = elsewhere(program, f"mysql://{login}{place}/{there.database}")
    server.run("state", "import", "file")
    server.run("sync", code=None)
    flow = server.flow()
    assert flow["objects"]["verified"] == 1
    assert flow["objects"].get("deleted", 0) == 0
    assert stage.ours.head_object(Bucket=stage.source, Key="a")
    server.run("release", "documents")
    server.run("sync")
    assert server.flow()["objects"]["deleted"] == 1

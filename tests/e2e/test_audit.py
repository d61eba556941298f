"""What was done can be proven later: the audit trail, its exports, and the certificate."""

from __future__ import annotations

import contextlib
import csv
import hashlib
import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import Stage
from tests.e2e.gaps import lacks, need
from tests.e2e.program import Program
from tests.e2e.test_copies import open_source

LONG = "k" * 1000
ODD = ["caf\u00e9", "cafe\u0301", "a ", "a", "A", '"quoted", and\nlines']


def odd(stage: Stage) -> list[str]:
    """Give the ODD keys, and a long one: as long as S3 takes it, or as the store does."""
    return [*ODD, LONG[:200] if lacks(stage.server, "key store-only/") else LONG]


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


@pytest.fixture
def done(stage: Stage) -> Program:
    """A flow that has moved objects, with two worker processes."""
    for number in range(20):
        stage.put(f"docs/{number:02}", b"x" * (number + 1))
    for key in odd(stage):
        stage.put(f"odd/{key}")
    program = stage.program({"name": "documents", "exclude": ["docs/19"]}, workers=2)
    program.run("sync")
    return program


def tamper(program: Program, statement: str) -> None:
    with contextlib.closing(sqlite3.connect(program.folder / "state.db")) as db, db:
        assert db.execute(statement).rowcount == 1


def head_of(program: Program) -> str:
    line = program.run("audit", "verify").out.strip()
    assert "intact, head " in line
    return line.rpartition(" ")[2]


# --- the trail -------------------------------------------------------------------------------


def test_each_object_is_a_row_and_the_chain_holds(stage: Stage, done: Program) -> None:
    rows = lines(done.run("audit", "export").out)
    assert [row["seq"] for row in rows] == list(range(1, len(rows) + 1))
    facts = {row["key"]: row for row in rows}
    assert len(facts) == len(rows) == 27
    assert facts["docs/19"]["fact"] == "skipped"
    assert facts["docs/19"]["reason"] == "excluded"
    assert {facts[f"odd/{key}"]["fact"] for key in odd(stage)} == {"verified"}
    etag = stage.ours.head_object(Bucket=stage.source, Key="docs/03")["ETag"].strip('"')
    row = facts["docs/03"]
    assert (row["etag"], row["target_etag"], row["size"]) == (etag, etag, 4)
    assert (row["method"], row["bucket"]) == ("put", stage.source)
    workers = {row["worker"].rpartition("/")[2] for row in rows if row["fact"] == "verified"}
    assert workers <= {"0", "1"}
    verdict = done.run("audit", "verify").out
    assert verdict == f"documents: 27 rows, intact, head 27:{rows[-1]['hash']}\n"


def test_a_row_that_was_changed_is_named(done: Program) -> None:
    tamper(done, "UPDATE audit SET size = 1 WHERE seq = 5")
    verdict = done.run("audit", "verify", code=1).out
    assert verdict.startswith("documents: BROKEN at row 5: its hash is ")


def test_an_end_that_was_cut_off_is_found(done: Program) -> None:
    head = head_of(done)
    done.run("audit", "verify", "--flow", "documents", "--head", head)
    tamper(done, "DELETE FROM audit WHERE seq = 27")
    assert "BROKEN at row 27" in done.run("audit", "verify", code=1).out
    # Cut off with care: only who kept the head can tell.
    tamper(
        done,
        "UPDATE chains SET seq = 26, hash = (SELECT hash FROM audit WHERE seq = 26)",
    )
    done.run("audit", "verify")
    answer = done.run("audit", "verify", "--flow", "documents", "--head", head, code=1)
    assert "BROKEN at row 27: the trail ends before it" in answer.out


@pytest.mark.parametrize("form", ["jsonl", "csv"])
def test_an_export_can_be_checked_without_the_state(done: Program, form: str) -> None:
    file = done.folder / f"trail.{form}"
    answer = done.run("audit", "export", "--format", form, "--output", str(file))
    head = answer.err.strip().rpartition(" ")[2]
    assert file.stat().st_mode & 0o777 == 0o600
    check = ("audit", "verify", "--file", str(file))
    assert f"documents: 27 rows, intact, head {head}" in done.run(*check).out
    done.run(*check, "--flow", "documents", "--head", head)
    text = file.read_text()
    file.write_text(text.replace("docs/03", "docs/00"))
    assert "BROKEN at row" in done.run(*check, code=1).out
    later = done.folder / "later"
    done.run("audit", "export", "--format", form, "--since", "20", "--output", str(later))
    answer = done.run("audit", "verify", "--file", str(later))
    # Of the first one the hash is there, and not what it was made with.
    unproven = "from 20 on, whose content only the row before it could prove"
    assert answer.out == f"documents: 8 rows {unproven}, intact, head {head}\n"
    later.write_text(later.read_text().replace(",10,", ",11,").replace(":10,", ":11,"))
    done.run("audit", "verify", "--file", str(later), code=1)


def test_csv_has_the_keys_as_they_are(stage: Stage, done: Program) -> None:
    file = done.folder / "trail.csv"
    done.run("audit", "export", "--format", "csv", "--output", str(file))
    with file.open(newline="", encoding="utf-8") as text:
        keys = {row["key"] for row in csv.DictReader(text)}
    assert keys >= {f"odd/{key}" for key in odd(stage)}


def test_the_trail_survives_a_forgotten_flow(done: Program) -> None:
    done.run("forget", "documents")
    assert "documents: 28 rows, intact" in done.run("audit", "verify").out
    last = lines(done.run("audit", "export", "--flow", "documents", "--since", "28").out)
    assert [row["fact"] for row in last] == ["forgotten"]


def test_what_cannot_be_checked_is_said(done: Program) -> None:
    answer = done.run("audit", "verify", "--flow", "other", code=2)
    assert "no audit trail of other; there are: documents" in answer.err
    assert "name it with --flow" in done.run("audit", "verify", "--head", "1:00", code=2).err
    wrong = done.run("audit", "verify", "--flow", "documents", "--head", "x", code=2)
    assert "not SEQ:HASH" in wrong.err
    missing = done.run("audit", "verify", "--file", "nowhere", code=2)
    assert "cannot read nowhere" in missing.err


@pytest.mark.parametrize("method", ["stream-only", "server-first"])
def test_the_version_that_was_copied_is_named(stage: Stage, method: str) -> None:
    need(stage.server, "versions")
    status = {"Status": "Enabled"}
    stage.ours.put_bucket_versioning(Bucket=stage.source, VersioningConfiguration=status)
    stage.put("a")
    version = stage.ours.head_object(Bucket=stage.source, Key="a")["VersionId"]
    if method == "server-first":
        open_source(stage)
    program = stage.program({"name": "documents", "method": method})
    program.run("sync")
    (row,) = lines(program.run("audit", "export").out)
    assert row["method"] == ("put" if method == "stream-only" else "server_copy")
    if method == "server-first" and lacks(stage.server, "copied-version"):
        version = ""  # none rather than a guess: another may have been the newest one by then
    assert row["version_id"] == version
    _, one, _ = lines(program.run("report", "--certificate").out)
    assert one["version"] == version


def test_the_trail_can_be_left_out(stage: Stage) -> None:
    stage.put("a")
    program = stage.program({"name": "documents"}, audit=False)
    program.run("sync")
    answer = program.run("audit", "verify")
    assert (answer.out, answer.err) == ("", "there is no audit trail\n")
    program.run("report", "--certificate")
    program.run("forget", "documents")
    assert program.run("audit", "export").out == ""


# --- the certificate -------------------------------------------------------------------------


def test_a_certificate_names_each_object_and_can_be_checked(stage: Stage, done: Program) -> None:
    file = done.folder / "certificate"
    done.run("report", "--certificate", "--output", str(file))
    head, *objects, end = lines(file.read_text())
    (flow,) = head["flows"]
    assert flow["source"] == f"ours:{stage.source}/"
    assert flow["listed"] == len(objects) == end["objects"] == 27
    assert end["outcomes"] == {"verified": 26, "skipped": 1}
    assert end["complete"] is True
    before, _, _ = file.read_bytes().rpartition(b',"sha256":"')
    assert end["sha256"] == hashlib.sha256(before).hexdigest()
    one = next(it for it in objects if it["key"] == "docs/07")
    assert (one["size"], one["state"], one["method"]) == (8, "verified", "put")
    assert one["etag"] == one["target_etag"]
    assert one["proof"] in {"etag", "checksum", "md5"}
    assert one["discovered"] <= one["verified"]
    assert (
        "27 objects, all that was listed has arrived"
        in done.run("report", "--check", str(file)).out
    )


def test_a_certificate_that_was_changed_is_refused(done: Program) -> None:
    file = done.folder / "certificate"
    done.run("report", "--certificate", "--output", str(file))
    text = file.read_text()
    for number, changed in enumerate(
        (
            text.replace('"size":8', '"size":9', 1),
            text.replace('"complete":true', '"complete":true,"by":"me"'),
            "".join(text.splitlines(keepends=True)[:-1]),
            text.replace('"objects":27', '"objects":26'),
            text.replace('"complete":true', '"complete":false'),
            text.replace('"skipped":1', '"skipped":0,"deleted":1'),
            "[" * 50_000,
            "{}\n",
            "",
        )
    ):
        assert changed != text, number
        file.write_text(changed)
        assert "NOT as it was written" in done.run("report", "--check", str(file), code=1).out


def test_what_has_not_arrived_makes_a_certificate_incomplete(stage: Stage) -> None:
    stage.put("fine")
    stage.put("lost")
    program = stage.program({"name": "documents"})
    program.run("scan")
    answer = program.run("report", "--certificate", code=1)
    assert "2 of 2 objects have not arrived" in answer.err
    _, first, _, end = lines(answer.out)
    assert (first["state"], end["complete"]) == ("discovered", False)
    program.run("sync")
    file = program.folder / "certificate"
    program.run("report", "--certificate", "--output", str(file))
    tamper(
        program,
        "UPDATE objects SET state = 13, reason = 'broken', message = 'why'"
        " WHERE object_key = CAST('lost' AS BLOB)",
    )
    answer = program.run("report", "--certificate", code=1)
    failed = next(it for it in lines(answer.out) if it.get("key") == "lost")
    assert (failed["state"], failed["reason"], failed["message"]) == ("failed", "broken", "why")
    saved = program.folder / "saved"
    saved.write_text(answer.out)
    assert "INCOMPLETE by its own words" in program.run("report", "--check", str(saved), code=1).out
    assert Path(file).exists()

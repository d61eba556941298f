"""`s3flow verify`: copies that somebody damaged, removed or wrote over are found; equal ones are proven."""

from __future__ import annotations

import contextlib
import json
import re
import signal
import sqlite3
import urllib.request
from typing import Any

import pytest

from tests.e2e.conftest import Stage
from tests.e2e.content import digests_of_folder, put_large
from tests.e2e.gaps import moving
from tests.e2e.program import Done, Program
from tests.servers import free_port

MIB = 1024 * 1024
TO_DISK = {"target": "nas:"}
EQUAL, DIFFERENT, UNPROVEN, INTERRUPTED = 0, 1, 4, 75


def lines(done: Done) -> dict[str, str]:
    """Give what was told of copies that differ: the word by key."""
    rows = [line.split("\t") for line in done.out.splitlines() if "\t" in line]
    return {row[1].partition("/")[2]: row[2] for row in rows}


def counts(program: Program, *words: str, code: int | None = EQUAL) -> dict[str, Any]:
    """Give the counts of the only flow, by --json."""
    told = json.loads(program.run("verify", "--json", *words, code=code).out.splitlines()[-1])
    (flow,) = told["flows"]
    return flow


# --- on disk ---------------------------------------------------------------------------------------


def test_files_that_were_damaged_removed_or_cut_are_named(stage: Stage) -> None:
    for number in range(20):
        stage.put(f"a/{number:02}", f"body {number}".encode())
    put_large(stage.ours, stage.source, "large", 9 * MIB)
    program = stage.program(TO_DISK)
    program.run("sync")
    equal = program.run("verify")
    assert "21 copies looked at" in equal.out
    assert "21 proven" in equal.out
    assert lines(equal) == {}
    (stage.nas / "a/03").write_bytes(b"BODY 3")
    (stage.nas / "a/04").unlink()
    (stage.nas / "a/05").write_bytes(b"cut")
    with (stage.nas / "large").open("r+b") as file:
        file.seek(8 * MIB + 5)
        file.write(b"\x00\x01\x02")
    found = program.run("verify", code=DIFFERENT)
    assert lines(found) == {
        "a/03": "differs",
        "a/04": "missing",
        "a/05": "differs",
        "large": "differs",
    }
    assert "17 proven" in found.out
    before = program.flow()["objects"]
    assert before["verified"] == before["listed"] == 21  # it only looked
    read = program.run("verify", "--read", code=DIFFERENT)
    assert lines(read) == lines(found)


def test_what_is_marked_comes_back_by_retry(stage: Stage) -> None:
    for key in ("good", "bad", "gone"):
        stage.put(key, key.encode() * 100)
    program = stage.program(TO_DISK)
    program.run("sync")
    good = digests_of_folder(stage.nas)
    (stage.nas / "bad").write_bytes(b"bAd" * 100)
    (stage.nas / "gone").unlink()
    marked = program.run("verify", "--mark", code=DIFFERENT)
    assert "2 marked as failed" in marked.out
    assert program.flow()["objects"]["failed"] == 2
    assert program.flow()["reasons"] == {"verification_failed": 2}
    failures = program.run("failures").out
    assert "MD5" in failures or "crc64nvme" in failures
    again = program.run("verify")  # it looks at what is said to be there
    assert "1 copies looked at" in again.out
    assert "2 that are not copied yet" in again.out
    program.run("retry", "--reason", "verification_failed")
    program.run("sync")
    assert digests_of_folder(stage.nas) == good
    program.run("verify")


def test_another_disk_under_the_same_path_is_not_taken_for_lost_copies(stage: Stage) -> None:
    stage.put("one")
    program = stage.program(TO_DISK)
    program.run("sync")
    stage.nas.rename(stage.folder / "elsewhere")
    assert stage.nas.is_dir()  # an empty mount point
    done = program.run("verify", "--mark", code=INTERRUPTED)
    assert ".s3flow-root" in done.err
    assert program.flow()["objects"]["failed"] == 0


def test_copies_whose_source_was_moved_away_are_proven_by_what_is_on_record(stage: Stage) -> None:
    for number in range(5):
        stage.put(f"{number}", f"body {number}".encode())
    program = stage.program(moving(stage.server, **TO_DISK))
    program.run("sync")
    assert program.flow()["objects"]["deleted"] == 5
    assert counts(program)["results"]["proven"] == 5
    (stage.nas / "1").unlink()
    (stage.nas / "2").write_bytes(b"BODY 2")
    found = program.run("verify", "--mark", code=DIFFERENT)
    assert lines(found)["1"] == "missing"
    assert "deleted by the move" in found.out
    assert "3 proven" in found.out
    assert program.flow()["objects"]["deleted"] == 5  # there is nothing to copy them from


# --- in a bucket -----------------------------------------------------------------------------------


def test_objects_that_were_overwritten_removed_or_changed_are_named(stage: Stage) -> None:
    for number in range(12):
        stage.put(f"a/{number:02}", f"body {number}".encode())
    put_large(stage.ours, stage.source, "large", 9 * MIB)
    program = stage.program()
    program.run("sync")
    program.run("verify")
    stage.theirs.put_object(Bucket=stage.target, Key="a/01", Body=b"BODY 1")
    stage.theirs.delete_object(Bucket=stage.target, Key="a/02")
    stage.put("a/03", b"a newer version")
    stage.ours.delete_object(Bucket=stage.source, Key="a/04")
    stage.theirs.put_object(Bucket=stage.target, Key="not/ours", Body=b"extra")
    for words in ((), ("--read",)):
        found = program.run("verify", *words, code=DIFFERENT)
        assert lines(found) == {"a/01": "differs", "a/02": "missing", "a/03": "source_changed"}
        assert "10 proven" in found.out  # of a/04 by the ETag that its source had
    program.run("verify", "--mark", code=DIFFERENT)
    assert program.flow()["reasons"] == {"verification_failed": 2}


def test_a_sample_is_the_same_each_time_and_a_limit_holds(stage: Stage) -> None:
    for number in range(60):
        stage.put(f"{number:02}")
    program = stage.program()
    program.run("sync")
    for number in range(60):
        stage.theirs.delete_object(Bucket=stage.target, Key=f"{number:02}")
    first = lines(program.run("verify", "--sample", "40%", code=DIFFERENT))
    second = lines(program.run("verify", "--sample", "40%", code=DIFFERENT))
    smaller = lines(program.run("verify", "--sample", "10%", code=DIFFERENT))
    assert first == second
    assert 0 < len(smaller) < len(first) < 60
    assert smaller.keys() < first.keys()
    assert counts(program, "--limit", "7", code=DIFFERENT)["objects"] == 7


# --- whoever copied it -----------------------------------------------------------------------------


def test_copies_of_other_tools_are_proven_by_listing(stage: Stage) -> None:
    for number in range(8):
        stage.put(f"{number}", f"body {number}".encode())
        if number != 5:
            body = b"other" if number == 6 else f"body {number}".encode()
            stage.theirs.put_object(Bucket=stage.target, Key=f"{number}", Body=body)
    put_large(stage.ours, stage.source, "in-parts", 9 * MIB)
    with stage.ours.get_object(Bucket=stage.source, Key="in-parts")["Body"] as body:
        whole = body.read()
    stage.theirs.put_object(Bucket=stage.target, Key="in-parts", Body=whole)  # other ETag
    stage.put("left-out.tmp")
    program = stage.program({"exclude": ["*.tmp"]})
    done = program.run("verify", code=2)
    assert "--listing" in done.err
    told = program.run("verify", "--listing", code=DIFFERENT)
    assert lines(told) == {"5": "missing", "6": "differs"}
    stage.theirs.put_object(Bucket=stage.target, Key="5", Body=b"body 5")
    stage.theirs.put_object(Bucket=stage.target, Key="6", Body=b"body 6")
    found = counts(program, "--listing", code=None)
    assert (found["results"]["proven"], found["results"]["size_only"]) in {(9, 0), (8, 1)}
    read = counts(program, "--listing", "--read")
    assert read["proofs"] == {"readback": 9}


def test_files_that_others_copied_are_proven_by_listing(stage: Stage) -> None:
    for number in range(4):
        stage.put(f"d/{number}", f"body {number}".encode())
    program = stage.program(TO_DISK)
    (stage.nas / "d").mkdir()
    for number in range(4):
        (stage.nas / f"d/{number}").write_bytes(f"body {number}".encode())
    assert counts(program, "--listing")["results"]["proven"] == 4
    (stage.nas / "d/2").write_bytes(b"body X")
    assert lines(program.run("verify", "--listing", code=DIFFERENT)) == {"d/2": "differs"}


# --- beside others, and ended ----------------------------------------------------------------------


def test_it_works_beside_a_daemon_which_alone_may_mark(stage: Stage) -> None:
    stage.put("one")
    program = stage.program({"every": "10m"})
    running = program.start("run")
    running.until(lambda: program.flow()["objects"]["verified"] == 1)
    program.run("verify")
    assert "state" in program.run("verify", "--mark", code=3).err
    running.stop()
    running.wait()


def test_an_interrupted_look_says_so_with_its_counts(stage: Stage) -> None:
    for number in range(60):
        stage.put(f"{number:02}")
    proxy = stage.proxy()
    program = stage.program({"concurrency": 2})
    program.run("sync")
    proxy.delay = lambda request: 0.2 if request.kind == "head" else 0.0
    before = len(proxy.requests)
    running = program.start("verify")
    running.until(lambda: len(proxy.requests) > before + 5)
    running.process.send_signal(signal.SIGINT)
    done = running.wait(INTERRUPTED)
    assert "INTERRUPTED" in done.out
    assert len(proxy.requests) - before < 120


def test_a_store_that_wants_to_be_left_alone_is_asked_again(stage: Stage) -> None:
    for number in range(5):
        stage.put(f"{number}")
    proxy = stage.proxy()
    program = stage.program()
    program.run("sync")
    refused = iter(range(6))
    proxy.refuse = lambda request: request.kind == "head" and next(refused, None) is not None
    assert counts(program)["results"]["proven"] == 5
    assert next(refused, None) is None


@pytest.mark.parametrize("words", [("--sample", "5"), ("--sample", "0%"), ("--limit", "0")])
def test_wrong_wishes_are_usage(stage: Stage, words: tuple[str, ...]) -> None:
    assert stage.program().run("verify", *words, code=2).err


# --- by the daemon ---------------------------------------------------------------------------------


def scraped(port: int) -> dict[str, int]:
    """Give how many copies were proven again, by result, as a scraper sees it."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            text = answer.read().decode()
    except OSError:
        return {}
    found = re.findall(r's3flow_scrubbed_total\{.*result="(\w+)"\} ([\d.]+)', text)
    return {result: round(float(number)) for result, number in found}


def test_a_daemon_proves_copies_again_counts_and_marks(stage: Stage) -> None:
    for number in range(30):
        stage.put(f"{number:02}", f"body {number}".encode())
    port = free_port()
    program = stage.program({**TO_DISK, "scrub": "100%/day"}, listen=f"127.0.0.1:{port}")
    program.run("sync")
    (stage.nas / "07").write_bytes(b"damaged")
    with contextlib.closing(sqlite3.connect(stage.folder / "state.db")) as state, state:
        # As if the last look had been a day ago.
        changed = state.execute(
            "UPDATE meta SET value = json_set(value, '$[2]', 1.0) WHERE name LIKE 'scrubbing/%'"
        )
        assert changed.rowcount == 1
    running = program.start("run")
    running.until(lambda: sum(scraped(port).values()) >= 30)
    assert scraped(port) == {"proven": 29, "differs": 1}
    assert program.flow()["reasons"] == {"verification_failed": 1}
    running.stop()
    running.wait()
    told = [entry for entry in running.logged() if "marked as failed" in str(entry)]
    assert len(told) == 1
    assert "07" in str(told[0])
    program.run("retry")
    program.run("sync")
    program.run("verify")

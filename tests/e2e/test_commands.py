"""The command line as a person meets it: exit statuses, messages, and the way out of trouble."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import queue
import re
import signal
import subprocess
from pathlib import Path

import pytest

from tests.e2e.conftest import Stage, staged
from tests.e2e.content import digests_of_folder
from tests.e2e.gaps import need
from tests.e2e.program import HANG, Program, Running, document
from tests.e2e.relaying import Request
from tests.servers import Account, Server, make_bucket, ministack

COMMANDS = (
    "run",
    "sync",
    "scan",
    "plan",
    "status",
    "retry",
    "failures",
    "forget",
    "doctor",
    "report",
    "verify",
)


def planned(program: Program) -> dict[tuple[str, str], int]:
    """Read the table that `plan` prints: objects by verdict and by what."""
    rows = re.findall(
        r"│ *([\w-]+) *│ *(\w+) *│ *([\w ]+?) *│ *([\d,]+) *│", program.run("plan").out
    )
    return {(verdict, what): int(count.replace(",", "")) for _, verdict, what, count in rows}


# --- before anything moves -----------------------------------------------------------------------


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(tmp_path: Path, command: str) -> None:
    program = Program.written(tmp_path, "", {})
    done = program.run(command, "--help")
    assert "--config" in done.out
    assert f"s3flow {command}" in done.out


def bad(tmp_path: Path, **changed: object) -> str:
    daemon = {"state": "sqlite:///state.db", "listen": "off"}
    endpoints = {"a": {"type": "s3", "url": "http://127.0.0.1:9"}, "b": {"type": "local"}}
    endpoints["b"]["path"] = str(tmp_path)
    flow = {"name": "one", "source": "a:bucket/", "target": "b:copy/"}
    daemon |= changed.pop("daemon", {})  # type: ignore[arg-type]
    endpoints["a"] |= changed.pop("endpoint", {})  # type: ignore[arg-type]
    return document(daemon, endpoints, [flow | changed])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"inclde": ["*"]}, ["inclde", "include"]),
        ({"endpoint": {"secret_access_key": "${NOT_SET_ANYWHERE}"}}, ["NOT_SET_ANYWHERE"]),
        ({"source": "nobody:bucket/"}, ["nobody", "source"]),
        ({"part_size": "12 parsecs"}, ["part_size", "parsecs"]),
        ({"daemon": {"queue": "redis://localhost"}}, ["queue", "local"]),
        ({"overwrite": "sometimes"}, ["overwrite", "never"]),
    ],
)
def test_a_wrong_configuration_is_named_with_its_remedy(
    tmp_path: Path, change: dict[str, object], words: list[str]
) -> None:
    program = Program.written(tmp_path, bad(tmp_path, **change), {})
    done = program.run("sync", code=2)
    assert "config.toml" in done.err
    assert "Traceback" not in done.err
    assert all(word in done.err for word in words), done.err
    assert not (tmp_path / "state.db").exists()


@pytest.mark.parametrize("command", ["run", "plan", "status", "doctor", "retry"])
def test_every_command_refuses_a_wrong_configuration(tmp_path: Path, command: str) -> None:
    program = Program.written(tmp_path, bad(tmp_path, source="nobody:bucket/"), {})
    assert "nobody" in program.run(command, code=2).err


def test_wrong_usage_is_told(tmp_path: Path) -> None:
    program = Program.written(tmp_path, bad(tmp_path), {})
    assert "nobody" in program.run("sync", "--flow", "nobody", code=2).err
    assert "--bogus" in program.run("sync", "--bogus", code=2).err
    assert "one a:bucket/" in program.run("rescan", "--bucket", "buckte", code=2).err
    assert "bucket is listed" in program.run("rescan", "--bucket", "bucket").out
    assert "--limit" in program.run("failures", "--limit", "0", code=2).err
    program.config.unlink()
    assert "config.toml" in program.run("sync", code=2).err


# --- plan, scan, status --------------------------------------------------------------------------


def test_plan_says_before_and_after_what_would_be_done(stage: Stage) -> None:
    for key in ("a", "b", "skipped.tmp"):
        stage.put(key)
    stage.theirs.put_object(Bucket=stage.target, Key="b", Body=b"some bytes")
    program = stage.program({"exclude": ["*.tmp"]})
    proxy_before = planned(program)
    assert proxy_before == {
        ("transfer", "put"): 1,
        ("adopt", "etag"): 1,
        ("skip", "excluded"): 1,
    }
    assert program.flow()["objects"]["listed"] == 0  # it only reads
    program.run("sync")
    assert stage.there("a") == b"some bytes"
    after = planned(program)
    assert {verdict for verdict, _ in after} <= {"unchanged", "skip"}
    assert sum(after.values()) == 3


def test_scan_records_and_transfers_nothing(stage: Stage) -> None:
    stage.put("a")
    program = stage.program({})
    program.run("scan")
    flow = program.flow()
    assert flow["objects"] == flow["objects"] | {"listed": 1, "pending": 1, "verified": 0}
    assert flow["scan"]["finished"]
    assert "KeyCount" in (answer := stage.theirs.list_objects_v2(Bucket=stage.target))
    assert answer["KeyCount"] == 0
    program.run("sync")
    assert program.flow()["objects"]["verified"] == 1


RATES = dict.fromkeys(("rate_bytes_per_s", "rate_objects_per_s", "eta_seconds"))  # they pass


def test_status_before_the_first_run_is_all_zero(stage: Stage) -> None:
    program = stage.program({})
    assert set(program.flow()["objects"].values()) == {0}
    program.run("status")
    assert not (program.folder / "state.db").exists()


def test_status_tells_programs_what_the_state_knows(stage: Stage) -> None:
    stage.put("a")
    stage.put("b.tmp")
    program = stage.program({"exclude": ["*.tmp"]}, {"name": "disk", "target": "nas:"})
    program.run("sync")
    printed = json.loads(program.run("status", "--json").out)["flows"]
    read = program.status()  # as other tests read it: in this process
    assert len(printed) == len(read) == 2
    for flow in printed:
        assert {**flow, **RATES} == {**read[flow["name"]], **RATES}
        assert flow["objects"]["listed"] == 2


def test_a_terminal_gets_a_display_that_goes_on_until_interrupted(stage: Stage) -> None:
    stage.put("a")
    program = stage.program({})
    assert b"verified" in on_a_terminal(program, "sync")
    shown = on_a_terminal(program, "status", "--watch", until=b"verified")
    assert b"Traceback" not in shown
    assert b"\x1b[2J" in shown  # it clears the screen before it prints again


def on_a_terminal(program: Program, *words: str, until: bytes = b"") -> bytes:
    """Run a command on a terminal of its own, interrupted when *until* is shown; gives what it shows."""
    here, there = pty.openpty()
    try:
        process = subprocess.Popen(
            program.command(*words),
            cwd=program.folder,
            env=program.environ | {"TERM": "xterm", "COLUMNS": "120", "LINES": "40"},
            stdin=there,
            stdout=there,
            stderr=there,
        )
        program.children.append(process)
        os.close(there)
        shown = b""
        with contextlib.suppress(OSError):  # EIO: the last one who had the terminal is gone
            while chunk := os.read(here, 65_536):
                shown += chunk
                if until and until in shown:
                    process.send_signal(signal.SIGINT)
                    until = b""
        assert process.wait(HANG) == 0, shown
    finally:
        os.close(here)
    return shown


# --- failures and the way out --------------------------------------------------------------------


def test_failures_are_listed_and_retried_by_reason(stage: Stage) -> None:
    stage.put("fine")
    stage.put("taken", b"the file")
    (stage.nas / "taken").mkdir()  # where the object should be
    program = stage.program({"target": "nas:"})
    summary = program.run("sync", code=1).out
    assert "failed: 1" in summary
    assert "path_conflict" in summary
    (line,) = program.run("failures").out.splitlines()
    flow, place, reason, message = line.split("\t")
    assert (flow, place, reason) == ("flow-0", f"{stage.source}/taken", "path_conflict")
    assert "taken" in message
    program.run("sync", code=1)  # unchanged: it stays failed

    (stage.nas / "taken").rmdir()
    assert "0 objects" in program.run("retry", "--reason", "archived").out
    assert "1 objects" in program.run("retry", "--reason", "path_conflict").out
    program.run("sync")
    assert (stage.nas / "taken").read_bytes() == b"the file"
    assert program.run("failures").out == ""
    assert program.flow()["objects"]["failed"] == 0


def test_failures_beyond_the_limit_are_told_of(stage: Stage) -> None:
    for name in ("a", "b", "c"):
        stage.put(f"{name}//")
    program = stage.program({"target": "nas:"})
    program.run("sync", code=1)
    for limit, lines, said in ((2, 2, "more than these 2"), (3, 3, "")):
        done = program.run("failures", "--limit", str(limit))
        assert len(done.out.splitlines()) == lines
        assert said in done.err
        assert bool(said) == bool(done.err)


def test_a_missing_bucket_is_said_and_counts_as_failure(stage: Stage) -> None:
    program = stage.program({"source": "ours:s3flow-is-not-there/"})
    done = program.run("sync", code=1)
    assert "s3flow-is-not-there" in done.err
    assert "no_such_bucket" in done.err
    assert "Traceback" not in done.err


def test_a_flow_that_changed_is_refused_until_it_is_forgotten(stage: Stage) -> None:
    stage.put("a")
    stage.program({"target": f"theirs:{stage.target}/one/"}).run("sync")
    program = stage.program({"target": f"theirs:{stage.target}/two/"})
    for command in ("sync", "run"):
        done = program.run(command, code=2)
        for word in ("flow-0", "target", "/one/", "/two/", "s3flow forget flow-0", "new name"):
            assert word in done.err
    assert "two/a" not in str(stage.theirs.list_objects_v2(Bucket=stage.target))
    assert "forgotten" in program.run("forget", "flow-0").out
    stage.theirs.put_object(Bucket=stage.target, Key="two/a", Body=b"some bytes")
    program.run("sync")
    assert program.flow()["methods"] == {"adopted": 1}


# --- doctor --------------------------------------------------------------------------------------


def test_doctor_finds_nothing_wrong_and_leaves_nothing_behind(stage: Stage) -> None:
    need(stage.server, "conditional-delete")
    stage.put("a")
    program = stage.program({}, {"target": "nas:copy/"})
    done = program.run("doctor")
    assert "FAIL" not in done.out
    assert len([line for line in done.out.splitlines() if line.startswith("ok")]) >= 8
    assert stage.theirs.list_objects_v2(Bucket=stage.target)["KeyCount"] == 0
    assert stage.theirs.list_multipart_uploads(Bucket=stage.target).get("Uploads", []) == []
    assert digests_of_folder(stage.nas) == {}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("kind", ["put", "create_upload", "upload_part", "put_copy"])
def test_an_interrupted_doctor_leaves_nothing_behind(
    stage: Stage, number: signal.Signals, kind: str
) -> None:
    started = queue.SimpleQueue[Running]()

    def interrupt(request: Request) -> float:
        if request.kind != kind:
            return 0.0
        started.get(timeout=HANG).process.send_signal(number)
        proxy.delay = lambda request: 0.0
        return 0.3  # seconds in which it could leave before it knows what it wrote

    stage.put("a")
    proxy = stage.proxy(delay=interrupt)
    running = stage.program({"method": "server-first"}).start("doctor")
    started.put(running)
    assert running.process.wait(HANG) == 128 + signal.SIGINT
    assert "Traceback" not in running.err.read_text()
    assert stage.theirs.list_objects_v2(Bucket=stage.target)["KeyCount"] == 0
    assert stage.theirs.list_multipart_uploads(Bucket=stage.target).get("Uploads", []) == []


def test_the_upload_of_a_killed_doctor_goes_with_the_next_one(stage: Stage) -> None:
    started = queue.SimpleQueue[Running]()

    def kill(request: Request) -> float:
        if request.kind == "upload_part":
            started.get(timeout=HANG).process.kill()
            proxy.delay = lambda request: 0.0
        return 0.0

    stage.put("a")
    proxy = stage.proxy(delay=kill)
    program = stage.program()
    program.run("sync")  # from now on there is a state, which says whose doctor it is
    running = program.start("doctor")
    started.put(running)
    assert running.process.wait(HANG) == -signal.SIGKILL
    assert len(stage.theirs.list_multipart_uploads(Bucket=stage.target)["Uploads"]) == 1
    assert "what killed doctors left: 1 removed" in program.run("doctor").out
    assert stage.theirs.list_multipart_uploads(Bucket=stage.target).get("Uploads", []) == []


def test_doctor_names_a_missing_bucket_and_folder(stage: Stage) -> None:
    stage.put("a")
    program = stage.program(
        {"target": "theirs:s3flow-is-not-there/"}, {"name": "disk", "target": "nas:copy/"}
    )
    stage.nas.rmdir()
    done = program.run("doctor", code=1)
    failed = [line for line in done.out.splitlines() if line.startswith("FAIL")]
    assert any("s3flow-is-not-there" in line and "flow-0" in line for line in failed)
    assert any("disk" in line and str(stage.nas) in line for line in failed)
    assert done.out.count("to do: ") == len(failed)
    assert "Traceback" not in done.out + done.err


def test_doctor_opens_the_state(stage: Stage) -> None:
    stage.put("a")
    program = stage.program()
    assert "nothing yet" in program.run("doctor").out
    program.config.write_text(program.config.read_text().replace("state.db", "gone/state.db"))
    done = program.run("doctor", code=1)
    (line,) = [line for line in done.out.splitlines() if line.startswith("FAIL")]
    assert "daemon.state" in line
    assert "create it first" in line
    assert program.run("sync", code=2).err.strip().endswith("create it first")


def test_commands_that_only_read_refuse_a_flow_that_changed_as_sync_does(stage: Stage) -> None:
    stage.put("a")
    program = stage.program({"target": "nas:one/"})
    program.run("sync")
    program.config.write_text(program.config.read_text().replace("nas:one/", "nas:two/"))
    for command in ("sync", "plan", "verify"):
        assert "is now 'nas:two/'" in program.run(command, code=2).err
    (line,) = [it for it in program.run("doctor", code=1).out.splitlines() if "FAIL" in it]
    assert "is now 'nas:two/'" in line


def test_doctor_prints_what_must_be_allowed_and_marks_what_is_not(tmp_path: Path) -> None:
    with ministack(auth=True) as server, staged(server, tmp_path) as stage:
        stage.put("in/a")
        target = make_bucket(server, 0)
        program = stage.program({"source": f"ours:{stage.source}/in/", "target": f"ours:{target}/"})
        allowed = program.run("doctor", "--policies").out
        assert "# missing" not in allowed
        assert f"arn:aws:s3:::{stage.source}/in/*" in allowed
        assert json.loads(allowed.partition("\n# ")[2].partition("\n")[2])["Version"]
        owner = Server(server.store, server.url, [Account("111111111111", "first")])
        deny = {"Effect": "Deny", "Action": "s3:ListMultipartUploadParts", "Resource": "*"}
        policy = json.dumps({"Version": "2012-10-17", "Statement": [deny]})
        with contextlib.closing(owner.client(0, "iam")) as iam:
            iam.put_user_policy(UserName="flow", PolicyName="no", PolicyDocument=policy)
        denied = program.run("doctor", "--policies", code=1).out
        assert "# missing: s3:ListMultipartUploadParts" in denied


def test_a_wrong_secret_is_said_plainly(tmp_path: Path) -> None:
    with ministack(auth=True) as server, staged(server, tmp_path) as stage:
        stage.put("a")
        program = stage.program({"target": f"ours:{make_bucket(server, 0)}/"})
        program.run("doctor")
        done = program.run("doctor", code=1, OURS_SECRET="wrong" * 8)
        assert "FAIL" in done.out
        assert "access_denied" in done.out
        assert "wrong" * 8 not in done.out + done.err
        failed = program.run("sync", code=1, OURS_SECRET="wrong" * 8)
        assert "access_denied" in failed.err
        assert "wrong" * 8 not in failed.out + failed.err

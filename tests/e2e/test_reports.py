"""Reports of runs: what `sync` and `run` leave in the folder, and `s3flow report` reads back."""

from __future__ import annotations

import contextlib
import json
import re
from pathlib import Path
from typing import Any

from tests.e2e.conftest import MIB, Stage
from tests.e2e.content import empty, put_large
from tests.e2e.program import Program, Running
from tests.servers import make_bucket

STAMPED = re.compile(r"transfer_summary_\d{8}T\d{6}Z(-\d+)?\.(log|json)")


def reports(program: Program, folder: str = "logs") -> list[dict[str, Any]]:
    """Read the reports, the oldest first; each has its two files, and nothing else is there."""
    files = sorted(path for path in (program.folder / folder).iterdir())
    assert all(STAMPED.fullmatch(path.name) for path in files), files
    assert {path.stem for path in files if path.suffix == ".log"} == {
        path.stem for path in files if path.suffix == ".json"
    }
    found = [json.loads(path.read_bytes()) for path in files if path.suffix == ".json"]
    return sorted(found, key=lambda report: report["total"]["ended"])


def test_sync_reports_what_it_did_and_names_the_file(stage: Stage) -> None:
    for number in range(12):
        stage.put(f"docs/{number:02}", b"x" * (number + 1))
    stage.put("large", b"y" * (6 * MIB))
    program = stage.program({"multipart_threshold": "5MiB", "part_size": "5MiB"})
    done = program.run("sync")
    (report,) = reports(program)
    (flow,) = report["flows"]
    total = report["total"]
    assert report["command"] == "sync"
    assert (report["exit_code"], report["interrupted"], report["error"]) == (0, False, "")
    assert flow["files_processed"] == flow["succeeded"] == flow["transferred"] == 13
    assert flow["bytes"] == total["bytes"] == sum(range(1, 13)) + 6 * MIB
    assert {name: one["objects"] for name, one in flow["methods"].items()} == {
        "put": 12,
        "multipart": 1,
    }
    assert flow["streamed"]["objects"] == 13
    assert flow["streamed"]["why"]
    assert [one["key"] for one in flow["largest"]][:2] == ["large", "docs/11"]
    assert flow["state"] | {"listed": 13, "verified": 13, "pending": 0} == flow["state"]
    assert flow["listed_to_the_end"]
    assert total["duration_ms"] > 0
    assert total["files_per_s"] > 0
    named = re.search(r"^report: (.+)$", done.out, re.MULTILINE)
    assert named
    text = Path(named[1]).read_text()
    assert re.search(r"13 files in .*files/s", text)
    assert "exit status 0" in text
    for path in (program.folder / "logs").iterdir():
        assert path.stat().st_mode & 0o777 == 0o600
    assert (program.folder / "logs").stat().st_mode & 0o777 == 0o700


def test_a_report_tells_adopted_skipped_and_unchanged_objects(stage: Stage) -> None:
    for key in ("a", "b", "left.tmp"):
        stage.put(key)
    stage.theirs.put_object(Bucket=stage.target, Key="b", Body=b"some bytes")
    program = stage.program({"exclude": ["*.tmp"]})
    program.run("sync")
    program.run("sync")
    first, second = (report["flows"][0] for report in reports(program))
    assert (first["transferred"], first["adopted"], first["skipped"]) == (1, 1, 1)
    assert first["files_processed"] == 3
    assert first["skip_reasons"] == {"excluded": 1}
    assert (second["files_processed"], second["listed"], second["unchanged"]) == (0, 3, 3)


def test_failed_objects_show_with_their_reasons(stage: Stage) -> None:
    stage.put("fine")
    stage.put("no/../way")
    program = stage.program({"target": "nas:"})
    program.run("sync", code=1)
    (report,) = reports(program)
    (flow,) = report["flows"]
    assert report["exit_code"] == 1
    assert (flow["succeeded"], flow["failed"]) == (1, 1)
    assert flow["failure_reasons"] == {"name_refused": 1}
    (failure,) = flow["failures"]
    assert failure["key"] == "no/../way"
    assert failure["message"]
    text = next((program.folder / "logs").glob("*.log")).read_text()
    assert "name_refused 1" in text


def test_an_interrupted_sync_says_so(stage: Stage) -> None:
    put_large(stage.ours, stage.source, "large", 40 * MIB)
    stage.put("small")
    proxy = stage.proxy()
    parts = {"multipart_threshold": "5MiB", "part_size": "5MiB", "lanes": 2}
    program = stage.program(parts, max_bytes_per_s=8 * MIB)
    running = program.start("sync")
    running.until(lambda: proxy.seen("upload_part"))
    running.stop()
    done = running.wait(75)
    (report,) = reports(program)
    (flow,) = report["flows"]
    assert (report["interrupted"], report["exit_code"]) == (True, 75)
    assert (flow["transferred"], flow["state"]["pending"]) == (1, 1)
    text = next((program.folder / "logs").glob("*.log")).read_text()
    assert "interrupted" in text
    assert "report: " in done.out
    program.run("sync", S3FLOW__DAEMON__MAX_BYTES_PER_S="0")
    _, second = reports(program)
    assert not second["interrupted"]
    assert second["flows"][0]["transferred"] == 1


def scans_finished(running: Running, flow: str) -> int:
    """Count the walks of a flow that ended."""
    logged = running.logged()
    return sum(one["event"] == "scan finished" and one["flow"] == flow for one in logged)


def test_a_daemon_reports_each_scan_and_keeps_one_of_those_that_found_nothing(stage: Stage) -> None:
    stage.put("a", b"1")
    program = stage.program({"name": "often", "every": "1s"}, {"name": "once", "target": "nas:"})
    running = program.start("run")
    running.until(lambda: scans_finished(running, "often") >= 4)
    stage.put("b", b"22")
    running.until(lambda: program.status()["often"]["objects"]["verified"] == 2)
    running.until(lambda: any(flow_of(one, "often")["bytes"] == 2 for one in written(program)))
    seen = scans_finished(running, "often")
    running.until(lambda: scans_finished(running, "often") >= seen + 3)
    running.stop()
    running.wait(0)
    found = reports(program)
    assert all(len(report["flows"]) == 1 for report in found)
    often = [report["flows"][0] for report in found if report["flows"][0]["name"] == "often"]
    work = [flow["bytes"] for flow in often if flow["files_processed"]]
    assert work == [1, 2]
    assert len(often) <= 4  # the first, a scan without news, the second, and another one without
    (once,) = [report for report in found if report["flows"][0]["name"] == "once"]
    assert (once["exit_code"], once["interrupted"]) == (None, False)
    assert once["flows"][0]["bytes"] == 1
    assert sum(one["event"] == "report written" for one in running.logged()) >= len(found)


def written(program: Program) -> list[dict[str, Any]]:
    """Read the reports that are there by now, while others are written."""
    files = (program.folder / "logs").glob("transfer_summary_*.json")
    found = []
    for path in files:
        with contextlib.suppress(FileNotFoundError):  # its place was taken
            found.append(json.loads(path.read_bytes()))
    return found


def flow_of(report: dict[str, Any], name: str) -> dict[str, Any]:
    """Give what a report says of a flow, zeros where it says nothing."""
    return next((one for one in report["flows"] if one["name"] == name), {"bytes": 0})


def test_a_report_says_what_went_inside_the_store_and_why_the_rest_did_not(
    ministack_stage: Stage,
) -> None:
    stage = ministack_stage
    for number in range(5):
        stage.put(f"{number}", b"x" * number)
    inside = make_bucket(stage.server, 0)
    stage.stack.callback(empty, stage.ours, inside)
    program = stage.program(
        {"name": "allowed", "method": "server-first", "target": f"ours:{inside}/"},
        {"name": "denied", "method": "server-first"},
    )
    program.run("sync")
    (report,) = reports(program)
    allowed, denied = report["flows"]
    assert allowed["methods"] == {"server_copy": {"objects": 5, "bytes": 10, "share": 1.0}}
    assert allowed["streamed"] == {"objects": 0, "bytes": 0, "share": 0.0, "why": []}
    assert [route["way"] for route in allowed["routes"]] == ["target's credentials"]
    assert denied["methods"] == {"put": {"objects": 5, "bytes": 10, "share": 1.0}}
    assert denied["failed"] == 0
    (why,) = denied["streamed"]["why"]
    assert "AccessDenied" in why
    total = report["total"]
    assert {name: one["share"] for name, one in total["methods"].items()} == {
        "put": 0.5,
        "server_copy": 0.5,
    }
    assert total["streamed"]["why"] == [why]
    text = next((program.folder / "logs").glob("*.log")).read_text()
    assert text.count(stage.target) == 1 + why.count(stage.target)  # where it goes, and why once
    assert "inside the store, by the target's credentials" in " ".join(text.split())


def test_worker_processes_are_counted_as_one(stage: Stage) -> None:
    sizes = list(range(1, 200))
    for number in sizes:
        stage.put(f"{number}", b"x" * number)
    program = stage.program({}, workers=2)
    program.run("sync")
    (report,) = reports(program)
    (flow,) = report["flows"]
    assert flow["transferred"] == len(sizes)
    assert flow["bytes"] == sum(sizes)
    assert [one["size"] for one in flow["largest"]] == sizes[:-11:-1]
    assert flow["seconds"]["p50"] <= flow["seconds"]["max"]
    assert flow["slowest"][0]["seconds"] == flow["seconds"]["max"]


def test_a_folder_that_cannot_be_written_is_a_warning(stage: Stage) -> None:
    stage.put("a")
    program = stage.program({})
    (program.folder / "logs").write_text("a file, where a folder should be")
    done = program.run("sync")
    assert stage.there("a") == b"some bytes"
    assert "daemon.reports" in done.err
    assert "report:" not in done.out
    shown = program.run("report")
    assert "verified: 1 objects" in shown.out


def test_no_folder_means_no_reports(stage: Stage) -> None:
    stage.put("a")
    program = stage.program({}, reports="")
    assert "report:" not in program.run("sync").out
    assert not (program.folder / "logs").exists()
    assert program.run("report", "--list").out == ""
    assert "verified: 1 objects" in program.run("report").out


def test_report_shows_the_newest_of_each_flow(stage: Stage) -> None:
    stage.put("a")
    both = ({"name": "one"}, {"name": "two", "target": "nas:"})
    program = stage.program(*both, reports="said/here")
    before = json.loads(program.run("report", "--json").out)
    assert before["reports"] == []
    assert len(before["state"]["flows"]) == 2
    program.run("sync")
    stage.put("b")
    program.run("sync", "--flow", "two")
    assert len(reports(program, "said/here")) == 2

    def told(*words: str) -> list[tuple[list[str], int]]:
        answer = json.loads(program.run("report", "--json", *words).out)["reports"]
        return [
            ([flow["name"] for flow in one["flows"]], one["total"]["transferred"]) for one in answer
        ]

    assert told() == [(["two"], 1), (["one"], 1)]
    assert told("--last") == [(["two"], 1)]
    assert told("--flow", "one") == [(["one"], 1)]
    text = program.run("report", "--flow", "one").out
    assert "1 file in" in text
    assert "two" not in text
    names = program.run("report", "--list").out.split()
    assert len(names) == 2
    newest = Path(names[0])
    assert newest.read_text() == program.run("report", "--last").out
    newest.with_suffix(".json").write_text('{"format": 99}')
    other = program.run("report", "--last")
    assert "format 99" in other.err
    assert "2 files in" in other.out


def test_what_breaks_down_at_once_leaves_no_report(stage: Stage) -> None:
    stage.put("a")
    program = stage.program({})
    program.run("sync")
    program.config.write_text(program.config.read_text().replace(stage.source, stage.target))
    assert program.run("sync", code=2).err
    assert len(reports(program)) == 1

"""Reports of runs: what `sync` and `run` leave in the folder, and `s3flow report` reads back."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from tests.e2e.conftest import MIB, Stage
from tests.e2e.program import Program

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

"""The folder of reports: written whole or not at all, none over another, found again by name."""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from s3flow.errors import S3flowError
from s3flow.observe.account import FORMAT, Account
from s3flow.observe.report import report_lines

_STEM = r"transfer_summary_(\d{8}T\d{6}Z)(?:-(\d+))?"
_NAME = re.compile(rf"{_STEM}\.json")
_ANY_NAME = re.compile(rf"\.?{_STEM}\..*")
_TRIES = 100  # for a name that others want as well


class BadReport(S3flowError):
    """A file is no report that this version reads."""

    reason = "bad_report"


def write_report(folder: Path, report: Account) -> Path:
    """Write both files and give the readable one. Raises `OSError`."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    moment = datetime.fromisoformat(report["total"]["ended"]).astimezone(UTC)
    stamp = f"{moment:%Y%m%dT%H%M%SZ}"
    names = [_ANY_NAME.fullmatch(path.name) for path in folder.iterdir()]
    # After the last one of this second, also where those before it were removed: names tell the order.
    taken = max((int(name[2] or 1) for name in names if name and name[1] == stamp), default=0)
    for number in range(taken + 1, taken + _TRIES):
        stem = f"transfer_summary_{stamp}" + (f"-{number}" if number > 1 else "")
        if _write_pair(folder, stem, report):
            return folder / f"{stem}.log"
    raise FileExistsError(f"others take every name of {stamp} in {folder}")


def _write_pair(folder: Path, stem: str, report: Account) -> bool:
    """Write the files of *stem*; False when others have the name.

    Whoever has the unfinished file has the name: two daemons may share a folder.
    """
    data, text = folder / f"{stem}.json", folder / f"{stem}.log"
    claim, other = folder / f".{stem}.json.part", folder / f".{stem}.log.part"
    try:
        descriptor = os.open(claim, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return False
    try:
        # ASCII alone: of the others some act on the terminal of who looks at the file.
        _fill(descriptor, json.dumps(report, indent=1) + "\n")
        if data.exists() or text.exists():
            return False
        descriptor = os.open(other, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        _fill(descriptor, "".join(f"{line}\n" for line in report_lines(report)))
        other.replace(text)
        claim.replace(data)
    finally:
        for path in (other, claim):
            path.unlink(missing_ok=True)
    return True


def _fill(descriptor: int, text: str) -> None:
    # What a key's bytes are read as may hold halves of surrogates, which no file encodes.
    with open(descriptor, "w", encoding="utf-8", errors="backslashreplace") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def reports_in(folder: Path) -> list[Path]:
    """Give the reports for programs, the newest first; none where there is no folder.

    Raises `BadReport` where nobody lets us look.
    """
    found = []
    try:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            for path in folder.iterdir():
                name = _NAME.fullmatch(path.name)
                if name is not None:
                    found.append((name[1], int(name[2] or 1), path))
    except OSError as error:
        raise BadReport(f"{folder}: the reports there cannot be read: {error}") from error
    return [path for *_, path in sorted(found, reverse=True)]


def read_report(path: Path) -> Account:
    """Read a report for programs. Raises `BadReport`."""
    try:
        report: Account = json.loads(path.read_bytes())
        version = report["format"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadReport(f"{path}: cannot be read as a report: {error}") from error
    if version != FORMAT:
        raise BadReport(f"{path}: is of format {version}, and this s3flow reads {FORMAT}")
    return report


def remove_report(text: Path) -> None:
    """Remove both files of the readable one *text*."""
    # Somebody may have moved or locked it away: then there is one more, and no harm.
    for path in (text.with_suffix(".json"), text):
        with contextlib.suppress(OSError):
            path.unlink()


def newest_reports(
    files: Sequence[Path], flows: Sequence[str], *, last: bool, warn: Callable[[str], object]
) -> list[Account]:
    """Give the newest report on each of *flows*, of *files*, the newest first; with *last* one file's.

    What a report says of other flows is left out. *warn* hears what cannot be read.
    """
    missing: set[str] = set(flows)
    found: list[Account] = []
    for path in files:
        try:
            report = read_report(path)
        except BadReport as error:
            warn(str(error))
            continue
        about = [one for one in report["flows"] if one["name"] in missing]
        missing -= {one["name"] for one in about}
        if len(about) == len(report["flows"]):
            found.append(report)
        else:
            found += [{**report, "total": one, "flows": [one]} for one in about]
        if not missing or (found and last):
            break
    return found

"""Exports of the audit trail: lines of JSON or CSV, and checking them without the state.

Spreadsheets carry out what begins like a formula, and whoever may write to a source names its keys. So
in CSV such a text has a quote before it (https://owasp.org/www-community/attacks/CSV_Injection), and
one that begins with a quote has one more: what was written can be told from what it says.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain

from s3flow.records import Audited
from s3flow.state import audit
from s3flow.state.audit import Check, Head

# "key_hex" has the keys that are not UTF-8, whose "key" is empty.
COLUMNS = (*audit.FIELDS[:6], "key_hex", *audit.FIELDS[6:])
_QUOTE = "'"
_MARKED = (*"=+-@\t\r\n", _QUOTE)  # what a formula begins with, and a mark


def json_lines(rows: Iterable[Audited]) -> str:
    """Give rows as lines of JSON."""
    return "".join([f"{audit.as_line(row)}\n" for row in rows])


def csv_lines(rows: Iterable[Audited]) -> str:
    """Give rows as CSV."""
    text = io.StringIO()
    # All texts in quotes: by itself the writer leaves a CR bare, and readers end the line there.
    writer = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
    writer.writerows([_cells(row) for row in rows])
    return text.getvalue()


def csv_header() -> str:
    """Give the first line of CSV."""
    return ",".join(COLUMNS) + "\n"


def _cells(row: Audited) -> tuple[object, ...]:
    try:
        names = (row.key.decode(), "")
    except UnicodeDecodeError:
        names = ("", row.key.hex())
    return tuple(
        f"{_QUOTE}{cell}" if isinstance(cell, str) and cell.startswith(_MARKED) else cell
        for cell in (*row[:5], *names, *row[6:])
    )


def check_export(lines: Iterator[str], kept: Mapping[str, Head]) -> dict[str, Check]:
    """Check the trails of an export, by flow; of each the first row may be a later one.

    *kept*: heads that somebody noted.
    """
    checks: dict[str, Check] = {}

    def of(flow: str, seq: int | None, digest: str) -> tuple[Check, bool]:
        found = checks.get(flow)
        if found is not None:
            return found, False
        found = checks[flow] = Check(kept.get(flow))
        if seq is not None and seq > 1:
            found.anchor(Head(seq, digest))
            return found, True
        return found, False

    start = next(lines, "")
    if start.startswith("flow,"):
        _check_csv(chain([start], lines), of)
    else:
        _check_json(chain([start], lines) if start else lines, of)
    return checks


Of = Callable[[str, int | None, str], tuple[Check, bool]]


def _check_json(lines: Iterable[str], of: Of) -> None:
    for line in lines:
        check, is_anchor = of(audit.flow_of(line), audit.seq_of(line), audit.hash_of(line))
        if not is_anchor:
            check.line(line)


def _check_csv(lines: Iterable[str], of: Of) -> None:
    for row in _csv_rows(lines):
        try:
            found = Audited._make([row[name].removeprefix(_QUOTE) for name in audit.FIELDS])
            found = found._replace(
                seq=int(row["seq"]),
                at=int(row["at"]),
                size=int(row["size"]),
                key=bytes.fromhex(row["key_hex"]) or str(found.key).encode(),
            )
        except (KeyError, TypeError, ValueError, AttributeError):
            check, _ = of(row.get("flow") or "", None, "")
            check.line("")
            continue
        check, is_anchor = of(found.flow, found.seq, found.hash)
        if not is_anchor:
            check.rows([found])


def _csv_rows(lines: Iterable[str]) -> Iterator[dict[str, str]]:
    try:
        yield from csv.DictReader(lines)
    except csv.Error:
        yield {}  # a field of a megabyte, say: it is none of ours

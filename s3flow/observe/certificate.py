"""The certificate: what arrived, object by object, in lines of JSON that a digest closes.

The last line has the number of objects, whether all that was to arrive has, and the SHA-256, in
hexadecimal digits, of all that stands before its `,"sha256":"`, the lines before it with their ends. So
no word of it can be changed without the digest. Keys that are not UTF-8 are in "key_hex" instead of "key".
"""

from __future__ import annotations

import datetime as dt
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from hashlib import sha256
from typing import NamedTuple

from s3flow import __version__
from s3flow.errors import SourceGone
from s3flow.model import OUTCOMES, Flow, Outcome
from s3flow.records import Record

FORMAT = "s3flow-certificate/1"
_ARRIVED = (Outcome.VERIFIED, Outcome.DELETED)
# Objects that a flow's filters leave out, and those that their owner deleted first, need not arrive.
_LEFT_OUT = {"not_included", "excluded", "storage_class", "too_small", "too_big", "too_young"}
_LEFT_OUT |= {"too_old", SourceGone.reason}
_DIGEST = ',"sha256":"'

_NONSENSE = (ValueError, KeyError, TypeError, RecursionError)


class Standing(NamedTuple):
    """What is certified of a flow besides its objects."""

    flow: Flow
    listed: int  # by the totals
    listed_bytes: int
    scanned: float | None  # end of the last whole listing, in seconds since the epoch
    unfinished: bool  # a listing is under way: there may be more objects


class Finding(NamedTuple):
    """What a certificate says, or what is wrong with it."""

    objects: int
    digest: str
    complete: bool
    problem: str = ""  # "": it is as it was written


class Certificate:
    """Writes one: the header, objects in their order, and the end."""

    def __init__(self, created: float) -> None:
        self._digest = sha256()
        self._created = created
        self.objects = 0
        self.outcomes: Counter[Outcome] = Counter()
        self.missing = 0  # objects that the flows take, and that have not arrived
        self._promised = 0
        self._unlisted = False

    @property
    def complete(self) -> bool:
        """Whether every flow was listed to its end, and each object that it takes has arrived."""
        return not self.missing and not self._unlisted and self.objects == self._promised

    def header(self, standings: Iterable[Standing]) -> str:
        """Give the first line, which is about the flows."""
        flows = []
        for flow, listed, listed_bytes, scanned, unfinished in standings:
            self._promised += listed
            if scanned is None or unfinished:
                self._unlisted = True
            flows.append(
                {
                    "flow": flow.name,
                    "source": str(flow.source),
                    "target": str(flow.target),
                    "listed": listed,
                    "listed_bytes": listed_bytes,
                    "listed_to_the_end": None if scanned is None else _moment(scanned * 1000),
                    "being_listed": unfinished,
                }
            )
        created = _moment(self._created * 1000)
        head = {"format": FORMAT, "created": created, "by": f"s3flow {__version__}"}
        return self._line({**head, "flows": flows})

    def lines(self, flow: str, records: Iterable[Record]) -> str:
        """Give the lines of objects."""
        return "".join([self._object(flow, record) for record in records])

    def end(self) -> str:
        """Give the last line."""
        counts = {outcome: self.outcomes[outcome] for outcome in Outcome if self.outcomes[outcome]}
        end = {"objects": self.objects, "outcomes": counts, "complete": self.complete}
        text = _dumps(end)[:-1]
        self._digest.update(text.encode())
        return f'{text}{_DIGEST}{self._digest.hexdigest()}"}}\n'

    def _object(self, flow: str, it: Record) -> str:
        outcome = OUTCOMES[it.state]
        self.objects += 1
        self.outcomes[outcome] += 1
        arrived = outcome in _ARRIVED
        try:
            name = {"key": it.key.decode()}
        except UnicodeDecodeError:
            name = {"key_hex": it.key.hex()}
        line: dict[str, object] = {"flow": flow, "bucket": it.bucket, **name}
        line |= {"version": it.version_id, "size": it.size, "etag": it.etag, "state": it.state}
        line |= {"target_etag": it.target_etag, "method": it.method, "proof": it.proof}
        line |= {"modified": _moment(it.modified), "discovered": _moment(it.discovered)}
        line["verified" if arrived else "updated"] = _moment(it.updated)
        if it.dropped:
            line["not_carried"] = it.dropped.split(",")
        if not arrived:
            line |= {"reason": it.reason, "message": it.message}
            self.missing += outcome is not Outcome.SKIPPED or it.reason not in _LEFT_OUT
        return self._line(line)

    def _line(self, content: dict[str, object]) -> str:
        line = f"{_dumps(content)}\n"
        self._digest.update(line.encode())
        return line


def check(lines: Iterator[str]) -> Finding:
    """Compare a certificate with the digest that closes it."""
    digest, objects, last = sha256(), -1, ""
    for number, line in enumerate(lines):
        if number == 0:
            problem = _problem_of_header(line)
            if problem:
                return Finding(0, "", complete=False, problem=problem)
        if last:
            digest.update(last.encode())
            objects += 1
        last = line
    text, _, rest = last.rpartition(_DIGEST)
    digest.update(text.encode())
    found = digest.hexdigest()
    try:
        end = json.loads(last)
        noted, count, complete = end["sha256"], end["objects"], end["complete"] is True
    except _NONSENSE:
        return Finding(max(objects, 0), found, complete=False, problem="its end is missing")
    problem = ""
    if rest != f'{noted}"}}\n' or set(end) != {"objects", "outcomes", "complete", "sha256"}:
        problem = "its last line is not as it was written"
    elif noted != found:
        problem = f"its lines give the digest {found}, and {noted} was noted"
    elif count != objects:
        problem = f"it has {objects:,} objects, and {count:,} were noted"
    return Finding(objects, found, complete, problem)


def _problem_of_header(line: str) -> str:
    try:
        form = json.loads(line)["format"]
    except _NONSENSE:
        return "it is no certificate"
    return "" if form == FORMAT else f"it has the format {form!r}, this version reads {FORMAT!r}"


def _dumps(content: object) -> str:
    return json.dumps(content, separators=(",", ":"))


def _moment(milliseconds: float) -> str:
    moment = dt.datetime.fromtimestamp(milliseconds / 1000, dt.UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")

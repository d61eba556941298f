"""The audit trail's chain: what is hashed of a row, and how a broken chain is found.

Each flow has a chain of its own, which outlives the flow. A row is written as one line of JSON, in
ASCII, without blanks, its fields always in the order of `FIELDS`:

    {"flow":"documents","seq":1,"at":1763654400000,"fact":"verified","bucket":"b","key":"a",…,"hash":"…"}

"key_hex" takes the place of "key" where the key is not UTF-8. The hash of a row is the SHA-256, in
hexadecimal digits, of the hash of the row before (of 64 zeros for the first), followed by the row's
line up to and without `,"hash":`. So an export can be checked without parsing any JSON:

    before = "0" * 64
    for line in open("documents.jsonl"):
        content, _, rest = line.rpartition(',"hash":"')
        before = hashlib.sha256((before + content).encode()).hexdigest()
        assert rest == before + '"}\\n', content

Rows that were cut off at the end are missed only by those who kept a later number and its hash.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from hashlib import sha256
from json.encoder import encode_basestring_ascii as quote
from typing import NamedTuple

from s3flow.records import Audited, Fact

FIELDS = Audited._fields
NOTHING = "0" * 64  # stands before the first row
_HASH = ',"hash":"'
# Stored instead of the words, and in the schema's table of facts: a new fact gets the next number.
CODES: dict[Fact, int] = {
    Fact.VERIFIED: 1,
    Fact.ADOPTED: 2,
    Fact.SKIPPED: 3,
    Fact.FAILED: 4,
    Fact.DELETED: 5,
    Fact.RETRIED: 6,
    Fact.VANISHED: 7,
    Fact.CHANGED: 8,
    Fact.FORGOTTEN: 9,
    Fact.KEPT: 10,
}
FACTS: dict[int, str] = {code: str(fact) for fact, code in CODES.items()}


class Happened(NamedTuple):
    """A fact before it has its place in the chain."""

    fact: Fact
    bucket_id: int
    bucket: str
    key: bytes
    size: int
    etag: str = ""
    target_etag: str = ""
    version_id: str = ""
    method: str = ""
    proof: str = ""
    reason: str = ""
    detail: str = ""
    worker: str = ""


# What `Happened` is made of: making a plain tuple for each object takes half the time.
Fields = tuple[Fact, int, str, bytes, int, str, str, str, str, str, str, str, str]


class Head(NamedTuple):
    """The last row of a chain: its number and hash."""

    seq: int = 0
    hash: str = NOTHING

    def __str__(self) -> str:
        """Give the head as it is noted down."""
        return f"{self.seq}:{self.hash}"


class Broken(NamedTuple):
    """The first row that is not what the chain says."""

    seq: int
    finding: str


def seal(
    chain_id: int, flow: str, head: Head, at: int, facts: Iterable[Fields]
) -> tuple[list[tuple[object, ...]], Head]:
    """Chain *facts* to *head*: the rows as the table has them, and the new head."""
    begin, codes, (seq, before) = _begin(flow), CODES, head
    rows: list[tuple[object, ...]] = []
    for it in facts:
        fact, bucket_id, bucket, key, size, *texts = it
        etag, target_etag, version_id, method, proof, reason, detail, worker = texts
        seq += 1
        # As `content`: this is done for each object.
        try:
            named = f'"key":{quote(key.decode())}'
        except UnicodeDecodeError:
            named = f'"key_hex":"{key.hex()}"'
        text = (
            f'{before}{begin}{seq},"at":{at},"fact":"{fact}","bucket":{quote(bucket)},{named},'
            f'"size":{size},"etag":{quote(etag)},"target_etag":{quote(target_etag)},'
            f'"version_id":{quote(version_id)},"method":{quote(method)},"proof":{quote(proof)},'
            f'"reason":{quote(reason)},"detail":{quote(detail)},"worker":{quote(worker)}'
        )
        digest = sha256(text.encode()).digest()
        before = digest.hex()
        rows.append((chain_id, seq, at, codes[fact], bucket_id, key, size, *texts, digest))
    return rows, Head(seq, before)


def _begin(flow: str) -> str:
    return f'{{"flow":{quote(flow)},"seq":'


def content(row: Audited) -> str:
    """Give what is hashed of a row, besides the hash of the one before."""
    named: dict[str, object] = {}
    for name, value in zip(FIELDS[:-1], row, strict=False):
        if isinstance(value, bytes):
            try:
                named[name] = value.decode()
            except UnicodeDecodeError:
                named[f"{name}_hex"] = value.hex()
        else:
            named[name] = value
    return json.dumps(named, separators=(",", ":"))[:-1]


def as_line(row: Audited) -> str:
    """Give the row as a line of an export, without its end."""
    return f'{content(row)}{_HASH}{row.hash}"}}'


class Check:
    """Follows one chain from its start and finds the first row that does not belong there.

    *kept* is a head that somebody noted: the row of that number must still have that hash.
    """

    def __init__(self, kept: Head | None = None) -> None:
        self.head = Head()
        self.first = 1  # row that the check begins with
        self.broken: Broken | None = None
        self._kept = kept

    def anchor(self, head: Head) -> None:
        """Begin after the row *head*, which is taken for what it says it is."""
        self.head = head
        self.first = head.seq
        self._compare_kept()

    def rows(self, rows: Iterable[Audited]) -> None:
        """Take the next rows."""
        for row in rows:
            if self.broken is None:
                self._next(row.seq, content(row), row.hash)

    def line(self, line: str) -> None:
        """Take the next line of an export."""
        if self.broken is not None:
            return
        text, mark, rest = line.rstrip("\r\n").rpartition(_HASH)
        seq = seq_of(line)
        if not mark or seq is None:
            self._break(self.head.seq + 1, "the line is none of an audit trail")
        elif rest[64:] != '"}':
            self._break(seq, "something follows its hash")
        else:
            self._next(seq, text, rest[:64])

    def end(self, recorded: Head | None = None) -> Broken | None:
        """Say what is broken, after the last row. *recorded* is the head that the state notes."""
        if self._kept is not None and self._kept.seq < self.first:
            self._break(self._kept.seq, f"it was kept, and the export begins with {self.first:,}")
        for head, whose in ((recorded, "the state"), (self._kept, "the head that was kept")):
            if self.broken is None and head is not None and head.seq > self.head.seq:
                self._break(
                    self.head.seq + 1,
                    f"the trail ends before it; {whose} knows of rows up to {head.seq:,}",
                )
        if self.broken is None and recorded is not None and recorded != self.head:
            self._break(self.head.seq, "it is not the row that the state notes as the last")
        return self.broken

    def _next(self, seq: int, text: str, noted: str) -> None:
        expected = self.head.seq + 1
        if seq != expected:
            self._break(expected, f"row {seq:,} is in its place")
            return
        found = sha256((self.head.hash + text).encode()).hexdigest()
        if found != noted:
            self._break(seq, f"its hash is {noted}, its content and the row before give {found}")
            return
        self.head = Head(seq, found)
        self._compare_kept()

    def _compare_kept(self) -> None:
        (seq, found), kept = self.head, self._kept
        if kept is not None and seq == kept.seq and found != kept.hash:
            self._break(seq, f"its hash is {found}, and {kept.hash} was kept")

    def _break(self, seq: int, finding: str) -> None:
        self.broken = Broken(seq, finding)


def seq_of(line: str) -> int | None:
    """Give the number of a row from its line; None when the line has none."""
    named = _parsed(line)
    seq = named.get("seq")
    return seq if isinstance(seq, int) else None


def flow_of(line: str) -> str:
    """Give the flow that a line tells of; "" when it tells of none."""
    return str(_parsed(line).get("flow", ""))


def hash_of(line: str) -> str:
    """Give the hash that a line ends with; "" when it has none."""
    return line.rstrip("\r\n").rpartition(_HASH)[2][:64]


def _parsed(line: str) -> dict[str, object]:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def parse_head(text: str) -> Head:
    """Read SEQ:HASH as `verify` prints it. Raises `ValueError`."""
    number, _, digits = text.partition(":")
    head = Head(int(number), digits.lower())
    if head.seq < 1 or len(bytes.fromhex(head.hash)) != 32:
        raise ValueError(f"{text!r} is no SEQ:HASH")
    return head


def as_fields(row: Sequence[object]) -> Audited:
    """Make a row of what the table has: flow, …, the code of its fact, …, and the hash as bytes."""
    flow, seq, at, code, bucket, key, size, *texts, digest = row
    fields = (flow, seq, at, FACTS.get(int(str(code)), str(code)), bucket or "", key, size, *texts)
    return Audited._make((*fields, bytes(digest).hex()))  # type: ignore[call-overload]

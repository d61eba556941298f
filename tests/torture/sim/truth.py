"""What is true of one flow whatever s3flow does: what people wrote, and what the two ends hold."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from s3flow.engine import plan
from s3flow.model import Flow
from s3flow.probes import DELETE_PROBE
from s3flow.state import sql
from s3flow.stores.memory import MemoryStore
from tests.torture import promises
from tests.torture.promises import Claim, Seen, Version

SIZES = (0, 1, 400, 400, 1000, 1001, 2500, 2500, 6300)
UNFINISHED = "SELECT upload_id FROM objects WHERE upload_id IS NOT NULL UNION SELECT upload_id FROM abandoned"
CLAIMS = """SELECT object_key, state, etag, reason, proof FROM objects
  JOIN flows ON flows.id = flow_id WHERE flows.name = ?"""
ROWS = "SELECT flow_id, state, sum(1), sum(size) FROM objects GROUP BY 1, 2 ORDER BY 1, 2"
TOTALS = (
    "SELECT flow_id, state, sum(objects), sum(bytes) FROM totals GROUP BY 1, 2"
    " HAVING sum(objects) ORDER BY 1, 2"
)


class Source(MemoryStore):
    """A source whose deletes are looked at as they happen."""

    truths: Sequence[Truth] = ()

    async def delete_object(self, bucket: str, key: bytes, *, etag: str) -> bool:
        """Delete, and compare what is gone with its copy."""
        found = self._contents(bucket).objects.get(key)
        done = await super().delete_object(bucket, key, etag=etag)
        if done and found is not None:
            for truth in self.truths:
                truth.deleted(bucket, key, found.data)
        return done


class Truth:
    """What people do to the objects of *flow*, and what was wrong with what s3flow did."""

    def __init__(
        self,
        flow: Flow,
        keys: Sequence[bytes],
        stores: tuple[Source, MemoryStore],
        rng: random.Random,
        attributes: Sequence[dict[str, str]],
    ) -> None:
        self.flow = flow
        self.keys = keys
        self.source, self.target = stores
        self.rng = rng
        self.attributes = attributes
        self.written: dict[bytes, list[Version]] = {}
        self.removed: set[bytes] = set()
        self.touched: set[bytes] = set()  # copies that others changed
        self.racing: set[bytes] = set()  # while s3flow ran: nothing protects these
        self.orphaned: set[bytes] = set()  # and these had no source any more
        self.wrong: list[str] = []
        self.deletes = 0
        self._count = 0

    # --- people ------------------------------------------------------------------------------------

    def write(self, key: bytes) -> None:
        """Put something new."""
        self._count += 1
        size = self.rng.choice(SIZES)
        if key in self.written and self.rng.random() < 0.5:
            size = len(self.written[key][-1].content)  # no length tells of such a change
        start = b"%d %s " % (self._count, key)
        self._put(key, (start + self.rng.randbytes(4) * (size // 4 + 1))[:size])

    def write_again(self, key: bytes) -> None:
        """Put what was there before, or is."""
        versions = self.written.get(key)
        if versions:
            content = self.rng.choice(versions[-3:]).content
            if isinstance(content, bytes):
                self._put(key, content)

    def _put(self, key: bytes, data: bytes) -> None:
        attributes: dict[str, Any] = dict(self.rng.choice(self.attributes))
        headers = {"content-type": f"text/{len(data)}"} if self.rng.random() < 0.5 else {}
        size = self.rng.choice((None, None, 700, 1000)) if len(data) > 1000 else None
        put = self.source.put(
            self.flow.source.bucket, key, data, part_size=size, headers=headers, **attributes
        )
        self.written.setdefault(key, []).append(Version(data, put.etag))
        self.removed.discard(key)

    def remove(self, key: bytes) -> None:
        """Delete an object that people want no more."""
        contents = self.source._contents(self.flow.source.bucket)
        if contents.objects.pop(key, None) is not None:
            contents.keys.remove(key)
            self.removed.add(key)

    def spoil(self, key: bytes, *, gone: bool, racing: bool) -> None:
        """Take the copy away, or change it, at the target."""
        bucket, name = self._place(key)
        contents = self.target._contents(bucket)
        found = contents.objects.get(name)
        if found is None or not (gone or found.data):
            return
        self.touched.add(key)
        if racing:
            self.racing.add(key)
        if racing or self.source.peek(self.flow.source.bucket, key) is None:
            self.orphaned.add(key)
        if gone:
            del contents.objects[name]
            contents.keys.remove(name)
        else:
            self.target.put(bucket, name, b"!" * len(found.data))

    # --- what s3flow did ---------------------------------------------------------------------------

    def copy(self, key: bytes) -> bytes | None:
        """Give what the target holds for a source key."""
        found = self.target.peek(*self._place(key))
        return None if found is None else found.data

    def deleted(self, bucket: str, key: bytes, data: bytes) -> None:
        """Look at a delete that just happened at the source."""
        if bucket != self.flow.source.bucket or key not in self.written:
            return
        self.deletes += 1
        if self.copy(key) != data and key not in self.racing:
            self.wrong.append(f"I1: {key!r} was deleted while its copy was another, or none")

    def check_durable(self, db: sqlite3.Connection, bucket: str, key: bytes, etag: str) -> None:
        """Look at a delete that is about to be asked for: its proof has to be durable."""
        if bucket != self.flow.source.bucket or key not in self.written:
            return
        for claim in self.claims(db):
            # Of another version by now: the condition of the delete is that it is not there any more.
            if claim.key == key and (claim.etag != etag or claim.state in promises.DONE):
                return
        self.wrong.append(f"I1: {key!r} is to be deleted as {etag!r}, and no proof is durable")

    def seen(self, db: sqlite3.Connection) -> Seen:
        """Give what there is now."""
        bucket = self.flow.source.bucket
        places = {self._place(key)[1]: key for key in self.keys}
        target = self._place(b"")[0]
        return Seen(
            source={key: self._data(self.source, bucket, key) for key in self.source.keys(bucket)},
            target={
                places.get(name, name): self._data(self.target, target, name)
                for name in self.target.keys(target)
                if DELETE_PROBE not in name  # what a death left of one, the next try removes
            },
            written=self.written,
            removed=self.removed,
            touched=self.touched,
            claims=self.claims(db),
            uploads=[
                name
                for store in {id(it): it for it in (self.source, self.target)}.values()
                for name, upload in store._uploads.items()
                if upload.bucket == target
            ],
            continued=[name for (name,) in db.execute(UNFINISHED)],
        )

    def seen_strictly(self, seen: Seen) -> Seen:
        """Give the same with those copies counted whose sources were there when others changed them."""
        return replace(seen, touched=self.orphaned)

    def claims(self, db: sqlite3.Connection) -> list[Claim]:
        """Give what the state says."""
        rows = db.execute(CLAIMS, (self.flow.name,)).fetchall()
        return [
            Claim(key, sql.STATES[state].value, etag, f"{reason} {proof}".strip())
            for key, state, etag, reason, proof in rows
        ]

    def _place(self, key: bytes) -> tuple[str, bytes]:
        bucket = self.flow.source.bucket
        return plan.target_bucket(self.flow, bucket), plan.target_key(self.flow, key)

    @staticmethod
    def _data(store: MemoryStore, bucket: str, key: bytes) -> bytes:
        found = store.peek(bucket, key)
        return b"" if found is None else found.data


def totals_differ(db: sqlite3.Connection) -> list[str]:
    """Compare the totals with the rows that they sum up."""
    rows, totals = db.execute(ROWS).fetchall(), db.execute(TOTALS).fetchall()
    return [] if rows == totals else [f"the totals say {totals}, the rows {rows}"]

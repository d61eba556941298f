"""What s3flow works on: a source where people write and delete, a target, a state that may be lost."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from dataclasses import replace
from pathlib import Path

from s3flow.engine.holding import OwnHolds
from s3flow.model import Filters
from s3flow.probes import DELETE_PROBE
from s3flow.records import Fact, Hold
from s3flow.state import sql
from s3flow.state.audit import FACTS
from s3flow.state.opening import open_state
from s3flow.state.store import SqlState
from s3flow.stores.memory import MemoryStore
from tests.torture.model.reference import Model, Row, Terms
from tests.torture.model.states import Backup, Kept
from tests.unit.lab import FLOW

KEYS = [b"a", b"b", b"bb", b"c/d"]
SIZES = [0, 10, 11, 2500]
PART = 1000  # bytes
_ROWS = "SELECT object_key, state, etag, reason, coalesce(upload_id, ''), generation FROM objects"
_PROVEN = (Fact.VERIFIED, Fact.ADOPTED)
_PROBES = (DELETE_PROBE, b"s3flow-probe-")  # a crash may leave one, which is no copy of anything


class Watched(MemoryStore):
    """A source that has each delete looked at as it happens."""

    world: World

    async def delete_object(self, bucket: str, key: bytes, *, etag: str) -> bool:
        """Tell of a delete in its very moment."""
        await asyncio.sleep(0)
        found = self._contents(bucket).objects.get(key)
        if found is None:
            return False
        self._check_etag(bucket, key, found, etag)
        _drop(self, bucket, key)
        self.world.deleted(key)
        return True


class World:
    """A flow between two stores and its state, as everybody but s3flow sees them."""

    def __init__(self, folder: Path, kept: Kept, *, to_disk: bool, sums: bool = False) -> None:
        self.model, self.kept = Model(), kept
        self.counts: Counter[str] = Counter()
        self._time = 1_000_000_000.0  # of the source: each version has another one
        self.src = Watched("src", page_size=2, clock=lambda: self._time, with_checksums=sums)
        self.src.make_bucket("from")
        self.src.world = self
        self.dst = MemoryStore("dst", page_size=2, with_checksums=sums)
        self.dst.make_bucket("to")
        self.disk = folder / "disk" if to_disk else None
        if self.disk is not None:
            self.disk.mkdir()
        self.holds = OwnHolds()
        self.state: SqlState | None = None
        self.backup: Backup = None
        self.orphans = (
            False  # the state was lost, or is an older one: uploads may be left that it knew
        )
        self._written = 0
        self.configure(Terms())

    # --- people ------------------------------------------------------------------------------------

    def write(self, key: bytes) -> None:
        """Put something that never was there."""
        self._written += 1
        # Versions that follow each other are mostly of one size: what tells them apart is their bytes.
        size = SIZES[(self._written // 8 + KEYS.index(key)) % len(SIZES)]
        self._put(key, (b"%d %s" % (self._written, key)).ljust(size, b".")[:size])

    def write_again(self, key: bytes, back: int) -> None:
        """Put again what was written last, or *back* versions before, if there is such a thing."""
        versions = self.model.written.get(key, ())
        if len(versions) > back:
            content = versions[-1 - back].content
            assert isinstance(content, bytes)
            self._put(key, content)

    def _put(self, key: bytes, data: bytes) -> None:
        self._time += 10
        made = self.src.put("from", key, data, part_size=PART if len(data) > PART else None)
        self.model.write(key, data, made.etag)

    def remove(self, key: bytes) -> None:
        """Delete an object at the source, if it is there."""
        _drop(self.src, "from", key)
        self.model.remove(key)

    def deleted(self, key: bytes) -> None:
        """Look at a delete that is being done."""
        self.counts["deletes"] += 1
        trail = self.kept.query("SELECT object_key, etag, fact FROM audit")
        proven = {etag for of, etag, fact in trail if of == key and FACTS[fact] in _PROVEN}
        self.model.deleted(key, self.copies().get(key), self.rows().get(key), self.terms, proven)

    def configure(self, terms: Terms) -> None:
        """Change the settings, and what the source can do."""
        self.terms = terms
        self.src._guard = terms.guard
        self.flow = replace(
            FLOW,
            mode=terms.mode,
            overwrite=terms.overwrite,
            unguarded_delete=terms.unguarded,
            filters=Filters(exclude=tuple(key.decode() for key in sorted(terms.excluded))),
            multipart_threshold=PART,
            part_size=PART,
        )

    async def hold(self, *, held: bool) -> None:
        """Hold the deletes, or release them."""
        self.terms = replace(self.terms, held=held)
        if held:
            await self.holds.put("flow", Hold("somebody said so", 0.0))
        else:
            await self.holds.drop("flow")

    # --- the target --------------------------------------------------------------------------------

    def copies(self) -> dict[bytes, bytes]:
        """Give all that anybody could read at the target."""
        if self.disk is None:
            found = {key: it.data for key, it in self.dst._contents("to").objects.items()}
        else:
            top = self.disk / "to"
            found = {
                bytes(path.relative_to(top)): path.read_bytes()
                for path in top.rglob("*")
                if path.is_file() and not path.name.startswith(".s3flow")
            }
        return {key: data for key, data in found.items() if not key.startswith(_PROBES)}

    def tamper(self, key: bytes, *, gone: bool) -> None:
        """Take a copy away, or put something else of its size there."""
        data = self.copies().get(key)
        if data is None or not (gone or data):
            return
        spoilt = None if gone else b"!" * len(data)
        if self.disk is not None:
            place = self.disk / "to" / key.decode()
            place.unlink()
            if spoilt is not None:
                place.write_bytes(spoilt)
                os.utime(place, (1, 1))  # of another time: size and time are what a folder tells
        elif spoilt is None:
            _drop(self.dst, "to", key)
        else:
            self.dst.put("to", key, spoilt)
        self.model.tamper(key, spoilt)

    def leftovers(self) -> list[str]:
        """Name what is unfinished at the target."""
        if self.disk is None:
            return sorted(self.dst._uploads)
        found = (path for path in self.disk.rglob(".s3flow*") if path.parent != self.disk)
        return sorted(path.name for path in found if path.is_file())

    # --- the state ---------------------------------------------------------------------------------

    def rows(self) -> dict[bytes, Row]:
        """Give what is durable of each key."""
        return {
            bytes(key): Row(sql.STATES[state], *rest)
            for key, state, *rest in self.kept.query(_ROWS)
        }

    def adopting(self) -> bool:
        """Say whether what is at the target may be taken over."""
        found = self.kept.query("SELECT adopting FROM flows")
        return not found or bool(found[0][0])

    async def opened(self) -> SqlState:
        """Open the state, unless it is."""
        if self.state is None:
            self.state = await open_state(self.kept.address)
            await self.state.open_flow(self.flow)
        return self.state

    async def close(self) -> None:
        """Let go of the state, as the end of the process does."""
        if self.state is not None:
            await self.state.close()
            self.state = None

    async def restart(self) -> None:
        """End the process and begin another."""
        await self.close()
        await self.opened()

    async def lose_state(self) -> None:
        """Begin with none."""
        await self.close()
        self.kept.lose()
        self.orphans = True
        await self.opened()

    async def back_up(self) -> None:
        """Keep the state as it is."""
        await self.close()
        self.backup = self.kept.back_up()
        await self.opened()

    async def restore(self) -> None:
        """Go on with the state that was backed up."""
        await self.close()
        self.kept.restore(self.backup)
        self.orphans = True
        await self.opened()
        self.model.doubt(self.rows())


def _drop(store: MemoryStore, bucket: str, key: bytes) -> None:
    contents = store._contents(bucket)
    if contents.objects.pop(key, None) is not None:
        contents.keys.remove(key)

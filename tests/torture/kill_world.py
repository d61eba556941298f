"""What kills are tried on: six flows of one daemon, people who change their sources, and the truth."""

from __future__ import annotations

import contextlib
import hashlib
import random
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pymysql

from tests import mariadb
from tests.e2e.conftest import MIB, Stage, staged
from tests.e2e.content import ROOT_MARK, digest_of, empty, put_large, uploads_left
from tests.e2e.program import Program, adds_up
from tests.e2e.proxy import Proxy
from tests.e2e.relaying import parts_sent_twice
from tests.servers import Server, make_bucket
from tests.torture import promises
from tests.torture.promises import Claim, Seen, Version

Query = Callable[[str], Sequence[Sequence[Any]]]

SMALL = 6  # keys of small objects below each prefix
LARGE = {
    "s3-copy": 11 * MIB,
    "s3-move": 11 * MIB,
    "disk-copy": 7 * MIB // 2,
    "disk-move": 5 * MIB // 2,
}
MOVES = ("s3-move", "disk-move")
STREAMS = ("s3-copy", "s3-move", "disk-copy", "disk-move")
NAMES = (*STREAMS, "inside", "frozen")
CLAIMS = (
    "SELECT objects.object_key, states.name, objects.etag, objects.reason FROM objects"
    " JOIN states ON states.code = objects.state"
)
LINE = "flow_id, bucket_id, state, reason, method, proof"
ROWS = f"SELECT {LINE}, COUNT(*), SUM(size) FROM objects GROUP BY {LINE}"
TOTALS = f"SELECT {LINE}, objects, bytes FROM totals WHERE objects <> 0"
TOLD_TWICE = (  # that one version was proven, or deleted
    "SELECT object_key, etag, fact, COUNT(*) FROM audit WHERE fact IN (1, 5)"
    " GROUP BY chain_id, object_key, etag, fact HAVING COUNT(*) > 1"
)


@dataclass(slots=True)
class World:
    """Flows, sources and targets of one seed. Keys are the same at both ends."""

    stage: Stage
    proxy: Proxy
    program: Program
    query: Query
    copies: str  # the bucket of copies inside the store
    rng: random.Random
    crew: bool
    written: dict[bytes, list[Version]] = field(default_factory=dict)
    removed: set[bytes] = field(default_factory=set)
    _read: dict[tuple[str, str, str], str] = field(default_factory=dict)

    # --- people ------------------------------------------------------------------------------

    def fill(self) -> None:
        """Write the first objects."""
        for name in STREAMS:
            for number in range(SMALL):
                self._put(f"{name}/{number}")
        self.put_all_large()
        for number in range(3):
            self._put(f"inside/{number}")
        for number in range(2):
            self._put(f"frozen/{number}", StorageClass="GLACIER")

    def stir(self) -> None:
        """Change something of each flow: new versions, new objects, and some that go."""
        rng = self.rng
        for name in STREAMS:
            for number in rng.sample(range(SMALL + 3), 3):
                self._put(f"{name}/{number}")
            if rng.random() < 0.25:
                self._remove(f"{name}/{rng.randrange(SMALL)}")
        for pair in (STREAMS[:2], STREAMS[2:]):
            self.put_large(rng.choice(pair))
        self._put(f"inside/{rng.randrange(5)}")
        self._put(f"frozen/{rng.randrange(4)}", StorageClass="GLACIER")

    def put_all_large(self) -> None:
        """Write another version of whatever goes in parts: no upload of theirs is gone on with."""
        for name in STREAMS:
            self.put_large(name)
        self._put_in_parts("inside/parts")

    def remove_all_large(self) -> None:
        """Delete whatever goes in parts: nobody wants their uploads any more."""
        for key in (*(f"{name}/large" for name in STREAMS), "inside/parts"):
            self._remove(key)

    def put_large(self, name: str) -> None:
        """Write another version of the large object of a flow."""
        self._put(f"{name}/large", LARGE[name] + self.rng.randrange(1000))

    def _put(self, key: str, size: int = -1, **about: object) -> None:
        size = self.rng.randrange(20_000) if size < 0 else size
        body = self.rng.randbytes(size)
        etag = self.stage.put(key, body, **about)
        self._wrote(key, hashlib.sha256(body).hexdigest(), etag)

    def _put_in_parts(self, key: str) -> None:
        size = 1000 + len(self.written.get(key.encode(), ()))  # the bytes follow from the key
        digest = put_large(self.stage.ours, self.stage.source, key, 8 * MIB + size)
        head = self.stage.ours.head_object(Bucket=self.stage.source, Key=key)
        self._wrote(key, digest, head["ETag"].strip('"'))

    def _wrote(self, key: str, digest: str, etag: str) -> None:
        self.written.setdefault(key.encode(), []).append(Version(digest, etag))
        self.removed.discard(key.encode())

    def _remove(self, key: str) -> None:
        """Delete an object as its owner; one that was moved meanwhile is not there any more."""
        place = {"Bucket": self.stage.source, "Prefix": key}
        found = self.stage.ours.list_objects_v2(**place).get("Contents", ())
        if any(each["Key"] == key for each in found):
            self.stage.ours.delete_object(Bucket=self.stage.source, Key=key)
            self.removed.add(key.encode())

    # --- the truth ---------------------------------------------------------------------------

    def seen(self) -> Seen:
        """Read what there is at both ends, and what the state says of it."""
        stage = self.stage
        target = self._bucket(stage.theirs, stage.target) | self._bucket(stage.ours, self.copies)
        files = {path: _digest(stage.nas / path.decode()) for path in self._files()}
        source = self._bucket(stage.ours, stage.source)
        found = source.keys() | target.keys() | files.keys()
        uploads = uploads_left(stage.theirs, stage.target) + uploads_left(stage.ours, self.copies)
        return Seen(
            source={key: each for key, each in source.items() if not _is_ours(key)},
            target={key: each for key, each in (target | files).items() if not _is_ours(key)},
            written=self.written,
            removed=self.removed,
            claims=[Claim(bytes(row[0]), *map(str, row[1:])) for row in self._rows(CLAIMS)],
            uploads=uploads,
            strays=sorted(key.decode() for key in found if _is_ours(key)),
        )

    def _files(self) -> list[bytes]:
        nas = self.stage.nas
        paths = (path.relative_to(nas).as_posix() for path in nas.rglob("*") if path.is_file())
        return sorted(path.encode() for path in paths if path != ROOT_MARK)

    def _bucket(self, client: Any, bucket: str) -> dict[bytes, str]:
        """Read a bucket; what has the ETag that it had is not read again."""
        found = {}
        for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket):
            for entry in page.get("Contents", ()):
                place = (bucket, entry["Key"], entry["ETag"])
                if place not in self._read:
                    self._read[place] = self._digest_of(client, entry)(bucket)
                found[entry["Key"].encode()] = self._read[place]
        return found

    def _digest_of(self, client: Any, entry: dict[str, str]) -> Callable[[str], str]:
        key, etag = entry["Key"], entry["ETag"].strip('"')
        if entry.get("StorageClass") == "GLACIER":  # which cannot be read: it is what people put
            version = next(it for it in self.written[key.encode()] if it.etag == etag)
            return lambda bucket: str(version.content)
        return lambda bucket: digest_of(client, bucket, key)

    def _rows(self, statement: str) -> Sequence[Sequence[Any]]:
        """Ask the state, past all code of s3flow; one that is not made yet says nothing."""
        try:
            return self.query(statement)
        except (sqlite3.OperationalError, pymysql.err.ProgrammingError) as error:
            if "no such table" in str(error) or "doesn't exist" in str(error):
                return ()
            raise

    def kept(self) -> list[str]:
        """Give the promises that are broken, at whatever moment."""
        rows, totals = (
            sorted((*map(str, row[:6]), *map(int, row[6:])) for row in self._rows(statement))
            for statement in (ROWS, TOTALS)
        )
        found = [f"I5: the totals are {totals}, the rows {rows}"] if rows != totals else []
        found += [f"I6: the trail tells twice: {row}" for row in self._rows(TOLD_TWICE)]
        return found + promises.kept(self.seen())

    def at_rest(self) -> list[str]:
        """Give the promises that are broken once s3flow says that all is done; see that it says so."""
        seen = self.seen()
        found = promises.kept_at_rest(seen)
        found += [f"I1: {key!r} was not moved" for key in seen.source if key.startswith(_MOVED)]
        found += [
            f"I5: {it.key!r} was moved, and is {it.state}"
            for it in seen.claims
            if it.key.startswith(_MOVED) and it.key not in self.removed and it.state != "deleted"
        ]
        for name, flow in self.program.status().items():
            objects = flow["objects"]
            if not adds_up(flow) or objects["pending"] or objects["failed"]:
                found.append(f"{name} does not add up, or is not done: {objects}")
        found += [f"a part was sent twice: {it}" for it in parts_sent_twice(self.proxy.requests)]
        audit = self.program.run("audit", "verify", code=None)
        if audit.code or audit.out.count(", intact") != len(NAMES):
            found.append(f"the audit trail is broken: {audit.out} {audit.err}")
        return found


_MOVED = tuple(f"{name}/".encode() for name in MOVES)


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _is_ours(key: bytes) -> bool:
    """Say whether it is a file, or a probe, that a life writes and removes again, or the next one does."""
    return key.rpartition(b"/")[2].startswith((b".s3flow-", b"s3flow-probe-"))


# --- making one ------------------------------------------------------------------------------


@contextlib.contextmanager
def made(
    server: Server,
    schemas: mariadb.Schemas | None,
    folder: Path,
    seed: int,
    *,
    crew: bool,
    bug: str,
) -> Iterator[World]:
    """Give a world; its state is in a schema of *schemas*, or in a file of *folder*."""
    folder.mkdir(parents=True)
    with staged(server, folder) as stage:
        proxy = stage.stack.enter_context(Proxy(server.url))
        stage.through(proxy, "theirs")
        address, query = _state(schemas, folder)
        copies = _own_bucket(stage)
        program = stage.program(
            *_flows(stage, copies),
            state=address,
            workers=2 if crew else 1,
            max_bytes_per_s=60 * MIB,
        )
        program.bug = bug
        world = World(stage, proxy, program, query, copies, random.Random(seed), crew)
        world.fill()
        yield world


def _own_bucket(stage: Stage) -> str:
    """Make a bucket that the source's own account can copy into by itself."""
    name = make_bucket(stage.server, 0)
    stage.stack.callback(empty, stage.ours, name)
    stage.stack.callback(empty, stage.ours, stage.source)
    return name


def _state(schemas: mariadb.Schemas | None, folder: Path) -> tuple[str, Query]:
    if schemas is None:
        return "sqlite:///state.db", lambda statement: _ask(folder / "state.db", statement)
    made = schemas.make()
    place = f"{made.user}:{made.password}@{made.host}:{made.port}/{made.database}"
    return f"mysql://{place}", lambda statement: schemas.query(statement, made.database)


def _ask(path: Path, statement: str) -> Sequence[Sequence[Any]]:
    if not path.exists():
        return ()
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
        return db.execute(statement).fetchall()


def _flows(stage: Stage, copies: str) -> list[dict[str, object]]:
    ours, theirs = f"ours:{stage.source}", f"theirs:{stage.target}"
    ends = {name: {"source": f"{ours}/{name}/", "target": f"nas:{name}/"} for name in NAMES}
    for name in ("s3-copy", "s3-move"):
        ends[name]["target"] = f"{theirs}/{name}/"
    ends["inside"]["target"] = f"ours:{copies}/inside/"
    about: dict[str, dict[str, object]] = {
        name: {"part_size": "1MiB", "multipart_threshold": "2MiB", "lanes": 2} for name in NAMES
    }
    for name in ("s3-copy", "s3-move"):
        about[name] = {"part_size": "5MiB", "multipart_threshold": "6MiB", "lanes": 2}
    about["inside"] = {"method": "server-first"}
    for name in MOVES:
        about[name]["mode"] = "move"
        about[name]["unguarded_delete"] = stage.server.store != "ministack"
    about["frozen"] = {"restore_poll": "300ms", "restore_days": 1}
    return [{"name": name, **ends[name], **about[name]} for name in NAMES]

"""Power loss: what was not made durable disappears, and nothing that counts as done is missing.

A flow to a folder lives several times. Each life is watched down to its writes and syncs, those of the
state's file too; then the power fails at many of its moments, in many ways, and each time what is left is
held to the promises. With one of these disks, or with that of a killed process whose bytes the kernel
still has, the next life goes on; the last one is left in peace and must bring everything to its end.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import os
import random
import sqlite3
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, TypeAlias

from s3flow.errors import S3flowError
from s3flow.policies import WEAK_PROOF, Mode
from s3flow.state import sql
from s3flow.stores.local.files import TOKEN_ATTRIBUTE
from s3flow.stores.memory_object import MemoryObject
from tests.torture import bugs
from tests.torture.disk import Disk, Leaf, Loss, Made, Op, Synced, Tree, Wrote, planted
from tests.torture.disk_calls import watched
from tests.torture.power_world import BUCKET, PART, TARGET, Life, Placed, Source, simulated
from tests.torture.programme import Broken, Task
from tests.torture.promises import DONE, Claim, Seen, Version, kept, kept_at_rest

Log: TypeAlias = list[Op | Placed]
POINTS = 24  # moments of a life at which the power fails
SIZES = (0, 0, 1, 10, 500, PART, PART + 1, 2 * PART, 5 * PART - 7, 70_000)
SEALED = 0.3  # of the large ones have an ETag that is no digest
FOLDERS = (b"", b"", b"a/", b"a/", b"a/b/", b"a/b/c/", b"d/", b"e/f/")
TARGET_PATH = f"{TARGET}/to".encode()
# A crash may leave the file by which a move looks whether both ends are one.
_OURS = (b".s3flow-", b"s3flow-probe-")
STORY = 40  # operations before a finding that are told with it
_OBJECTS = "SELECT object_key, state, etag, coalesce(reason, '') FROM objects"


@dataclass(slots=True)
class People:
    """What is at the source, and all that ever was."""

    there: dict[bytes, MemoryObject] = field(default_factory=dict)
    written: dict[bytes, list[Version]] = field(default_factory=dict)

    def take(self, placed: Placed) -> None:
        """Note a change."""
        if placed.found is None:
            del self.there[placed.key]
        else:
            self.there[placed.key] = placed.found
            version = Version(placed.found.data, placed.found.etag)
            self.written.setdefault(placed.key, []).append(version)


class Moment(NamedTuple):
    """A world that a life begins in."""

    disk: Disk
    people: People


@dataclass(slots=True)
class Round:
    """One flow's lives, by a seed."""

    folder: Path
    seed: int
    counts: Counter[str] = field(default_factory=Counter)
    foreign: set[bytes] = field(default_factory=set)  # keys of files that others put at the target
    count: int = 0
    draw: random.Random = field(init=False)
    mode: Mode = field(init=False)

    def __post_init__(self) -> None:
        self.draw = random.Random(self.seed)
        self.mode = self.draw.choice([Mode.MOVE, Mode.MOVE, Mode.COPY])

    # --- the world ---------------------------------------------------------------------------------

    def begin(self) -> Moment:
        """Make a source with objects, and a folder in which others may have put some of them."""
        people, disk = People(), Disk()
        top, below = disk.last + 1, disk.last + 2
        for op in (
            Made(0, TARGET.encode(), top, True),
            Made(top, b"to", below, True),
            Synced(None),
        ):
            disk.apply(op)
        for _ in range(self.draw.choice([1, 3, 6, 12, 20])):
            key = self.draw.choice(FOLDERS) + b"%d" % self.draw.randrange(30)
            people.take(self.write(key))
        if self.draw.random() < 0.3:
            people.take(self.write(b"marker/"))
        return Moment(disk, people)

    def put_beside(self, people: People, to: Path) -> None:
        """Let others copy some objects to the target, who do not wait for its disk."""
        for key in sorted(people.there):
            place = to / os.fsdecode(key)
            if b"/" in key or place.exists():
                continue
            self.foreign.add(key)
            found = people.there[key]
            fd = os.open(place, os.O_WRONLY | os.O_CREAT)
            os.pwrite(fd, found.data, 0)
            os.utime(fd, ns=(found.modified * 1_000_000, found.modified * 1_000_000))
            os.close(fd)

    def write(self, key: bytes) -> Placed:
        """Write something of one's own to a key."""
        self.count += 1
        size = 0 if key.endswith(b"/") else self.draw.choice(SIZES)  # by the rule for folders
        data = (b"%d %s " % (self.count, key) * (size // 4 + 1))[:size]
        part = PART if len(data) > PART and self.draw.random() < 0.7 else None
        # Nothing tells of such a one what is in it: its copy is no better than what the disk kept.
        sealed = "aws:kms" if len(data) > PART and self.draw.random() < SEALED else ""
        made = Source("made").put(BUCKET, key, data, part_size=part, encryption=sealed)
        return Placed(key, made)

    def live(self, start: Moment, life: Life, *, calm: bool = False) -> tuple[Log, Disk]:
        """Let s3flow run to its end; gives what happened, and the disk as programs see it."""
        log: Log = []
        disk, source = copy.deepcopy(start.disk), Source("src")
        source.make_bucket(BUCKET)
        for key, found in start.people.there.items():
            source._place(BUCKET, key, found)
        source.tell = log.append

        def meanwhile(key: bytes) -> None:
            if not calm and self.draw.random() < 0.03:
                placed = self.write(key)
                assert placed.found is not None
                source._place(BUCKET, key, placed.found)
                log.append(placed)

        source.meanwhile = meanwhile
        with tempfile.TemporaryDirectory(dir=self.folder) as place:
            top = Path(place)
            lay(disk.tree(), top)
            time.sleep(0.01)  # what is there is older than what the life makes
            life = Life(life.mode, time.time() - 0.005)
            beside = [] if calm else self.draw.sample([True, False, False], 1)

            def put_beside() -> None:
                if beside and beside.pop():
                    self.put_beside(start.people, top / os.fsdecode(TARGET_PATH))

            source.beside = put_beside
            with (
                simulated(self.draw.getrandbits(32), life.started) as loop,
                watched(top, disk, log.append),
            ):
                asyncio.set_event_loop(loop)
                try:
                    loop.run_until_complete(life.live(top, source))
                except (S3flowError, BaseExceptionGroup) as error:
                    end = [f"a life ended with {error!r}"]
                    raise Broken(self.story(end, Loss.NONE, log, disk)) from error
                finally:
                    loop.run_until_complete(loop.shutdown_default_executor())
                    asyncio.set_event_loop(None)
            compare(disk.tree(), pick(top))
        self.counts["lives"] += 1
        self.counts["calls"] += len(log)
        return log, disk

    # --- the power fails ---------------------------------------------------------------------------

    def fail_often(self, start: Moment, log: Log) -> Moment:
        """Look at what is left at many moments of a life; gives the world that the next begins in."""
        moments = sorted({*self.draw.choices(range(1, len(log) + 1), k=POINTS), len(log)})
        after_delete = [
            n + 1 for n, op in enumerate(log) if isinstance(op, Placed) and not op.found
        ]
        moments = sorted({*moments, *self.draw.sample(after_delete, min(4, len(after_delete)))})
        chosen = self.draw.choice(moments)
        now, done, onward = copy.deepcopy(start), 0, None
        left: Tree = {}
        for moment in moments:
            for op in log[done:moment]:
                if isinstance(op, Placed):
                    now.people.take(op)
                else:
                    now.disk.apply(op)
            done = moment
            for loss in self.draw.sample(list(Loss), 3):
                left = now.disk.after(loss, self.draw)
                self.counts["power losses"] += 1
                self.counts["with something lost"] += left != now.disk.tree()
                found = self.wrong(left, now.people)
                if found:
                    raise Broken(self.story(found, loss, log[:moment], now.disk))
            if moment == chosen:
                onward = copy.deepcopy(now)
                if self.draw.random() < 0.6:
                    onward = Moment(planted(left), onward.people)
                else:
                    self.counts["simulated kills"] += 1
        assert onward is not None
        return onward

    def wrong(self, left: Tree, people: People) -> list[str]:
        """Hold what is left to the promises."""
        claims = self.claims_of(left)
        seen = self.see(left, people, claims)
        done = {claim.key for claim in claims if claim.state in DONE}
        self.counts["claims"] += len(done)
        gone = people.written.keys() - people.there.keys()
        self.counts["deleted"] += len(gone)
        unproven = [f"promise 1: {key!r} is deleted, and no state says why" for key in gone - done]
        return kept(seen) + unproven

    def see(self, left: Tree, people: People, claims: Sequence[Claim]) -> Seen:
        """Put it in the words of the promises."""
        target = copies(left)
        claimed = {claim.key for claim in claims if claim.state == "verified"}
        for key in self.foreign - claimed:
            # What others wrote may be lost as long as nobody relies on it.
            if key in people.there:
                target.pop(key, None)
        for key in people.written:
            if key.endswith(b"/") and left.get(TARGET_PATH + b"/" + key[:-1], b"") is None:
                target[key] = b""
        there = {key: found.data for key, found in people.there.items()}
        return Seen(there, target, people.written, claims=claims)

    def claims_of(self, left: Tree) -> list[Claim]:
        """Read the state's file as the next start would find it."""
        with tempfile.TemporaryDirectory(dir=self.folder) as place:
            for name in (b"state.db", b"state.db-wal", b"state.db-journal"):
                if leaf := left.get(name):
                    (Path(place) / os.fsdecode(name)).write_bytes(leaf.data)
            try:
                with contextlib.closing(sqlite3.connect(Path(place) / "state.db")) as db:
                    db.execute("PRAGMA synchronous = OFF")  # nobody needs this copy tomorrow
                    (answer,) = db.execute("PRAGMA quick_check(1)").fetchone()
                    if answer != "ok":
                        raise Broken(f"I5: the state is damaged: {answer}")
                    if not db.execute(
                        "SELECT 1 FROM sqlite_master WHERE name = 'objects'"
                    ).fetchone():
                        return []
                    rows = db.execute(_OBJECTS).fetchall()
            except sqlite3.DatabaseError as error:
                raise Broken(f"I5: the state cannot be read: {error} (seed {self.seed})") from error
        return [Claim(key, str(sql.STATES[code]), etag, reason) for key, code, etag, reason in rows]

    def story(self, found: Sequence[str], loss: Loss, log: Log, disk: Disk) -> str:
        """Tell a finding with what led to it."""
        told = [describe(op, disk) for op in log[-STORY:]]
        head = f"power lost after {len(log)} operations of life {self.counts['lives']}: {loss}"
        repeat = f"python -m tests.torture --only power --rounds 1 --seed {self.seed}"
        return "\n  ".join([head, f"repeat: {repeat}", *found, "before that:", *told])

    # --- all of it ---------------------------------------------------------------------------------

    def go(self) -> None:
        """Live, fail, live again; then in peace, to the end."""
        now = self.begin()
        for _ in range(self.draw.randint(1, 3)):
            happened, _ = self.live(now, Life(self.draw.choice([self.mode, self.mode, Mode.COPY])))
            now = self.fail_often(now, happened)
        log: Log = []
        for _ in range(2):  # the first one ends a listing that was cut off, behind what was listed
            log, disk = self.live(now, Life(self.mode), calm=True)
            for op in log:
                if isinstance(op, Placed):
                    now.people.take(op)
            now = Moment(disk, now.people)
        tree = now.disk.tree()
        seen = self.see(tree, now.people, self.claims_of(tree))
        strays = [os.fsdecode(path) for path in tree if is_stray(path)]
        seen.strays = strays
        if self.mode is Mode.MOVE:  # what is proven by its size alone stays
            weak = {claim.key for claim in seen.claims if claim.reason == WEAK_PROOF}
            seen.source = {key: data for key, data in seen.source.items() if key not in weak}
        found = kept_at_rest(seen, moved=self.mode is Mode.MOVE)
        if found:
            found += [f"state: {it}" for it in seen.claims if it.state not in DONE]
            raise Broken(self.story(found, Loss.NONE, log, now.disk))


def run(task: Task) -> Counter[str]:
    """Let the power fail until the task is over."""
    bugs.plant(task.bug)
    counts: Counter[str] = Counter()
    for seed in task.seeds():
        one = Round(task.folder, seed, counts)
        one.go()
        counts["rounds"] += 1
    if counts["rounds"] > 5 and not (counts["with something lost"] and counts["claims"]):
        raise Broken(f"nothing was ever at stake: {dict(counts)}")
    return counts


def copies(tree: Tree) -> dict[bytes, bytes]:
    """Give the objects of the target by key: the files that do not bear our own unfinished names."""
    return {
        path.removeprefix(TARGET_PATH + b"/"): leaf.data
        for path, leaf in tree.items()
        if leaf is not None and path.startswith(TARGET_PATH + b"/")
        if not path.rpartition(b"/")[2].startswith(_OURS)
    }


def is_stray(path: bytes) -> bool:
    """Say whether this is an unfinished file."""
    name = path.rpartition(b"/")[2]
    return name.startswith(b".s3flow-") and name != b".s3flow-root"


def describe(op: Op | Placed, disk: Disk) -> str:
    """Tell an operation for people."""
    if isinstance(op, Placed):
        return f"source: {op.key!r} {'deleted' if op.found is None else 'written'}"
    node = getattr(op, "node", None)
    where = "" if node is None else f" {os.fsdecode(disk.path_of(node))}"
    if isinstance(op, Wrote):
        return f"Wrote{where}: {len(op.data)} bytes at {op.offset}"
    return f"{type(op).__name__}{where}: {tuple(op)[1:]}"


def lay(tree: Tree, top: Path) -> None:
    """Put a tree on the real disk."""
    for path in sorted(tree):
        place, leaf = top / os.fsdecode(path), tree[path]
        if leaf is None:
            place.mkdir()
            continue
        place.write_bytes(leaf.data)
        for name, value in leaf.facts.items():
            if name == "mtime":
                os.utime(place, ns=(int(value), int(value)))
            else:
                os.setxattr(place, name, bytes(value))


def pick(top: Path) -> Tree:
    """Take the tree that is on the real disk."""
    found: Tree = {}
    for place in top.rglob("*"):
        path = os.fsencode(place.relative_to(top))
        if place.is_dir():
            found[path] = None
            continue
        facts: dict[str, bytes | int] = {"mtime": place.stat().st_mtime_ns}
        with contextlib.suppress(OSError):
            facts[TOKEN_ATTRIBUTE] = os.getxattr(place, TOKEN_ATTRIBUTE)
        found[path] = Leaf(place.read_bytes(), facts)
    return found


def compare(known: Tree, real: Tree) -> None:
    """See that nothing escaped the watch: a shim that misses calls proves nothing."""
    for tree in (known, real):
        tree.pop(b"state.db-shm", None)  # shared memory, which no crash keeps
    assert known.keys() == real.keys(), sorted(known.keys() ^ real.keys())
    for path, leaf in real.items():
        told = known[path]
        assert (leaf is None) is (told is None), path
        if leaf is not None and told is not None:
            assert told.data == leaf.data, f"{path!r}: written past the watch"
            assert told.facts.items() <= leaf.facts.items(), (path, told.facts, leaf.facts)

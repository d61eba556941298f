"""Bugs to plant: each breaks one promise, to see that the programmes find it.

Planted in this process by `plant`, or in an s3flow of its own: `python -m tests.torture.bugs NAME
COMMAND …` runs the command line with the bug in it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

BUGS: dict[str, Callable[[], None]] = {}


def bug(plant: Callable[[], None]) -> Callable[[], None]:
    """Name a bug after the function that plants it: `state_before_upload` is "state-before-upload"."""
    BUGS[plant.__name__.replace("_", "-")] = plant
    return plant


def plant(name: str) -> None:
    """Break the s3flow of this process; "" breaks nothing."""
    if name:
        BUGS[name]()


def replace(what: object, by: object) -> None:
    """Let all of s3flow that has imported *what* use another one."""
    for module in [each for name, each in sys.modules.items() if name.startswith("s3flow")]:
        for name, value in list(vars(module).items()):
            if value is what:
                setattr(module, name, by)


@bug
def reused_dirty_connection() -> None:
    """Use a connection again though bytes of its last answer are still to come."""
    from s3flow.wire.connection import Connection
    from s3flow.wire.http import Pool

    done = Pool._done

    def careless(self: Pool, connection: Connection, clean: bool) -> None:
        done(self, connection, clean or connection.usable)

    Pool._done = careless  # type: ignore[method-assign]


@bug
def leaked_secret() -> None:
    """Log each request as it goes out, its headers included."""
    import logging

    from s3flow.wire.http import Pool

    head = Pool._head

    def chatty(self: Pool, method: str, target: str, headers: dict[str, str], size: int) -> bytes:
        for name, value in headers.items():
            logging.getLogger("s3flow.wire").debug("asking with %s: %s", name, value)
        return head(self, method, target, headers, size)

    Pool._head = chatty  # type: ignore[method-assign]


@bug
def state_before_upload() -> None:
    """Record each object as verified, durably, before it is sent."""
    from s3flow.engine.recorder import Entry, Recorder
    from s3flow.engine.worker import Worker
    from s3flow.model import Change, Method, Proof, State, Transfer

    move = Worker._move

    async def hasty(self: Worker, transfer: Transfer) -> Entry:
        change = Change(transfer, State.VERIFIED, method=Method.PUT, proof=Proof.ETAG)
        change.target_etag = transfer.etag
        if isinstance(self.recorder, Recorder):  # else another process records
            await self.recorder.record(Entry(change))
            await self.recorder.flush()
        return await move(self, transfer)

    Worker._move = hasty  # type: ignore[method-assign]


@bug
def delete_before_durable() -> None:
    """Delete the source of a move once its copy is proven, before that is durable."""
    from s3flow.engine.recorder import Entry
    from s3flow.engine.worker import Worker
    from s3flow.model import State, Transfer

    move = Worker._move

    async def hasty(self: Worker, transfer: Transfer) -> Entry:
        entry = await move(self, transfer)
        if entry.change.state is State.VERIFIED and entry.change.due_at:
            source = self.route.source
            await source.delete_object(transfer.bucket, transfer.key, etag=transfer.etag)
        return entry

    Worker._move = hasty  # type: ignore[method-assign]


@bug
def missing_if_match_read() -> None:
    """Read whatever is at the source by now, also when a part of another version was read before."""
    from s3flow.engine.route import Route
    from s3flow.model import Span, Transfer
    from s3flow.ports import Body

    open_it = Route.open

    async def careless(self: Route, transfer: Transfer, span: Span | None = None) -> Body:
        return await open_it(self, transfer._replace(etag=""), span)

    Route.open = careless  # type: ignore[method-assign]


@bug
def missing_if_match_delete() -> None:
    """Delete whatever is at the source by now, also what was never copied."""
    from s3flow.engine import removing
    from s3flow.model import Doomed

    removing.Doomed = lambda key, etag, version="": Doomed(key, "", version)


@bug
def swallowed_cancellation() -> None:
    """Take the failure that a cancellation meets for the whole story, as groups of Python 3.12 do."""
    import asyncio
    from collections.abc import Awaitable

    from s3flow import lanes
    from s3flow.engine import daemon  # noqa: F401  with it come all who import it

    kept = lanes.together

    async def deaf(work: Callable[[asyncio.TaskGroup], Awaitable[object]]) -> None:
        try:
            async with lanes.Group() as group:
                await work(group)
        except BaseExceptionGroup as failed:
            task = asyncio.current_task()
            while task is not None and task.uncancel():
                pass  # from Python 3.13 on a group asks for the cancellation once more
            raise lanes._cause(failed) from None

    replace(kept, deaf)
    replace(lanes.heed_cancellation, lambda: None)  # it would hear it all the same


@bug
def lost_lease() -> None:
    """Give what a worker process holds to a second one, while the first still works on it."""
    from s3flow.crew.seat import Seat
    from s3flow.engine.flow import RunningFlow
    from s3flow.model import Transfer

    give = Seat.give

    def give_twice(self: Seat, flow: RunningFlow, transfer: Transfer) -> None:
        give(self, flow, transfer)
        for peer in self.peers:
            if peer is not self and peer.has_room(transfer.flow) and transfer.size < 1000:
                flow.feed.in_flight += 1  # no count gives it away, and no row
                give(peer, flow, transfer._replace(id=-transfer.id))
                return

    Seat.give = give_twice  # type: ignore[method-assign]


@bug
def forgotten_work() -> None:
    """Forget what a dead worker process held, as if it were somebody else's."""
    from s3flow.engine.feed import Feed
    from s3flow.model import Transfer

    async def forget(self: Feed, transfers: Sequence[Transfer]) -> None:
        self.in_flight -= len(transfers)
        self.wake()

    Feed.returned = forget  # type: ignore[method-assign]


@bug
def leaked_memory() -> None:
    """Keep something of each transfer for ever."""
    from s3flow.events import TransferEnded
    from s3flow.observe.metrics import Metrics

    ended, kept = Metrics._ended, []

    def hoarding(self: Metrics, event: TransferEnded) -> None:
        kept.append(bytes(300_000))
        ended(self, event)

    Metrics._ended = hoarding  # type: ignore[method-assign]


@bug
def missing_fsync() -> None:
    """Give files their names without having made their bytes durable."""
    from s3flow.stores.local.settle import Settlement

    Settlement._sync_data = lambda self, todo: None  # type: ignore[method-assign]


@bug
def missing_fsync_of_names() -> None:
    """Take files for durable whose names are not."""
    from s3flow.stores.local.settle import Settlement

    Settlement._sync_directories = lambda self, todo: None  # type: ignore[method-assign]


@bug
def missing_fsync_of_parts() -> None:
    """Note parts of files as written that are not durable."""
    from s3flow.stores.local import journal, uploads

    uploads._commit = lambda data, log, line: journal.append(log, line)


@bug
def missing_fsync_of_adopted() -> None:
    """Rely on files of others that they may not have made durable."""
    from s3flow.stores.local import LocalStore

    async def hasty(self: LocalStore, bucket: str, keys: Sequence[bytes]) -> None:
        pass

    LocalStore.flush = hasty  # type: ignore[method-assign]


@bug
def missing_fsync_of_state() -> None:
    """Let SQLite make the state durable when it likes."""
    from s3flow.state.database import SqliteDatabase

    prepare = SqliteDatabase._prepare

    def hasty(self: SqliteDatabase) -> None:
        prepare(self)
        self._db.execute("PRAGMA synchronous = NORMAL")

    SqliteDatabase._prepare = hasty  # type: ignore[method-assign]


if __name__ == "__main__":
    from s3flow.__main__ import main

    plant(sys.argv.pop(1))
    main()

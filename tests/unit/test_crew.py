"""The supervisor and its worker processes: work is handed out, comes back, and is given to others."""

from __future__ import annotations

import asyncio
import errno
import itertools
import logging
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest

from s3flow.crew import crew as crew_module
from s3flow.crew import seat as seat_module
from s3flow.crew.crew import Post, ProcessCrew
from s3flow.crew.link import Message
from s3flow.crew.messages import REMEMBER, REMEMBERED, pack_verdict
from s3flow.crew.process import Child
from s3flow.engine.daemon import Daemon
from s3flow.engine.wiring import RouteMaker, Wiring
from s3flow.errors import StateError, WorkerLost
from s3flow.events import (
    BytesMoved,
    Event,
    Retried,
    RouteDecided,
    TransferEnded,
    TransferStarted,
    WorkerEnded,
    WorkerStarted,
)
from s3flow.model import Outcome, Transfer, Verdict
from s3flow.state.sqlite import open_sqlite
from s3flow.stores.crc64 import Crc64Nvme
from tests.unit.lab import Lab, count, store

PROGRAM = Path(__file__).with_name("crew_member.py")


class Hall:
    """A lab whose transfers are moved by processes."""

    def __init__(self, folder: Path, objects: int = 40) -> None:
        self.lab = Lab(folder)
        self.sizes = 0
        for number in range(objects):
            self.sizes += len(self.lab.put(b"%03d" % number, number))
        self.tidied: list[tuple[dict[str, bytes], int]] = []
        self.on_event: Callable[[Event], None] = lambda event: None

    async def run(self, *troubles: str, places: int = 4, once: bool = True) -> Counter[Outcome]:
        """Run until drained or stopped, with a process for each of *troubles*."""
        lab = self.lab
        state = await open_sqlite(lab.folder / "state.db")
        posts = [
            Post(self._orders(number, trouble, once=once), {"flow": places})
            for number, trouble in enumerate(troubles)
        ]
        crew = ProcessCrew(
            lambda: Child(self._command, state.lease), posts, lab.stop, self._tell, self._tidy
        )
        daemon = Daemon(
            state,
            [Wiring(lab.flow, lab.source, lab.target)],
            lab.pace,
            Crc64Nvme(),
            self._tell,
            lab.stop,
            crew=crew,
        )
        try:
            async with asyncio.TaskGroup() as group:
                keeping = group.create_task(crew.run())
                await daemon.run(once=True)
                keeping.cancel()
            return count(await state.totals("flow"))
        finally:
            await state.close()

    def _orders(self, number: int, trouble: str, *, once: bool) -> bytes:
        flag = str(self.lab.folder / f"flag-{number}") if once else ""
        return f"{trouble}|{flag}".encode()

    @staticmethod
    def _command(descriptor: int) -> list[str]:
        code = (
            f"import runpy, sys; sys.path[:] = {sys.path!r};"
            f"runpy.run_path({str(PROGRAM)!r}, run_name='__main__')"
        )
        return [sys.executable, "-c", code, str(descriptor)]

    def _tell(self, event: Event) -> None:
        self.lab.events.append(event)
        self.on_event(event)

    async def _tidy(self, marks: Mapping[str, bytes], lost: Sequence[Transfer]) -> None:
        self.tidied.append((dict(marks), len(lost)))

    def check_events(self) -> None:
        """Whatever happened: what started also ended, and no process is left."""
        lab = self.lab
        assert len(lab.of(TransferStarted)) == len(lab.of(TransferEnded))


@pytest.fixture
def hall(tmp_path: Path) -> Hall:
    return Hall(tmp_path)


async def test_all_is_moved_by_all(hall: Hall) -> None:
    assert await hall.run("", "") == {Outcome.VERIFIED: 40}
    assert {event.worker for event in hall.lab.of(WorkerStarted)} == {0, 1}
    assert hall.lab.of(WorkerEnded) == []
    assert sum(event.bytes for event in hall.lab.of(BytesMoved)) == hall.sizes
    assert len(hall.lab.of(TransferStarted)) == 40
    hall.check_events()
    assert hall.lab.claimed_nowhere() == []


async def test_what_one_process_finds_out_all_know_and_the_next_run_too(
    hall: Hall,
) -> None:
    lab = hall.lab
    lab.target = store("dst", "to", beside=lab.src)  # one service: copies are tried
    heard: Counter[int] = Counter()

    class Heard(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.getMessage() == "heard that from is streamed":
                heard[record.worker] += 1  # type: ignore[attr-defined]

    handler = Heard()
    logging.getLogger("s3flow.test").addHandler(handler)
    try:
        assert await hall.run("finds", "") == {Outcome.VERIFIED: 40}
        [found] = lab.of(RouteDecided)
        assert (found.verdict.bucket, found.verdict.way) == ("from", "streamed")
        assert set(heard) <= {1}  # who told it is told nothing; the other may come late
        heard.clear()
        lab.put(b"one more", 10)
        assert await hall.run("", "") == {Outcome.VERIFIED: 41}
        assert heard  # as they came up, those that did in time
        assert set(heard.values()) == {1}
    finally:
        logging.getLogger("s3flow.test").removeHandler(handler)


async def test_what_one_process_finds_out_is_said_to_the_others_at_once(hall: Hall) -> None:
    lab = hall.lab
    told: list[Event] = []
    maker = RouteMaker(lab.pace, Crc64Nvme(), told.append, lab.stop)
    route = maker.route(Wiring(lab.flow, lab.src, store("dst", "to", beside=lab.src)))
    posts = [Post(b"", {"flow": 1})] * 3
    crew = ProcessCrew(lambda: Child(hall._command, []), posts, lab.stop, hall._tell, hall._tidy)
    crew._flows["flow"] = SimpleNamespace(route=route)  # type: ignore[assignment]
    said: list[list[Message]] = []
    for seat in crew._seats[:2]:
        said.append([])
        seat._link = SimpleNamespace(send=said[-1].append)  # type: ignore[assignment]
    verdict = Verdict("flow", "from", "objects", "streamed", "no (403)", 1.0, time.time() + 60)
    await crew._seats[0]._hear(pack_verdict(verdict))
    assert said == [
        [],
        [pack_verdict(verdict)],
    ]  # the third one is dead, and hears it when it lives
    assert told == [RouteDecided(verdict)]
    assert route.verdicts is not None
    assert not await route.verdicts.ask("from")


async def test_what_a_dead_process_held_is_moved_by_others(
    hall: Hall, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR):
        assert await hall.run("dies", "") == {Outcome.VERIFIED: 40}
    (ended,) = hall.lab.of(WorkerEnded)
    assert ended.worker == 0
    assert ended.how == "with exit code 9"
    assert ended.returned >= 1
    assert hall.tidied == [({"dst": b".mark-"}, ended.returned)]
    # Only what it had begun failed; the rest had not been touched.
    (retried,) = hall.lab.of(Retried)
    assert retried.reason == "worker_died"
    hall.check_events()
    assert [
        (entry.message, entry.worker) for entry in caplog.records if "last" in entry.message
    ] == [("last words", 0)]


async def test_what_was_not_durable_is_moved_again(hall: Hall) -> None:
    def kill_at_the_end(event: Event) -> None:
        if len(hall.lab.of(TransferEnded)) == 40 and isinstance(event, TransferEnded):
            os.kill(hall.lab.of(WorkerStarted)[0].pid, signal.SIGKILL)

    hall.on_event = kill_at_the_end
    # It ends all, and never says of every other one that it is settled.
    assert await hall.run("loses") == {Outcome.VERIFIED: 40}
    (ended,) = hall.lab.of(WorkerEnded)
    assert ended.returned == 20
    assert ended.how == "by signal 9"
    hall.check_events()


async def test_an_upload_is_on_record_before_its_process_knows(hall: Hall) -> None:
    assert await hall.run("asks") == {Outcome.VERIFIED: 40}
    # The next process was given the upload's id: it had been durable before the answer went out.
    messages = hall.lab.query("SELECT message FROM objects WHERE message != ''")
    assert messages == [("upload-1",)] * len(messages)
    assert messages


@pytest.mark.parametrize(
    ("error", "said", "logged"),
    [
        (StateError("the state is away"), "the state is away", 0),
        (RuntimeError("a defect"), "an upload could not be noted: RuntimeError: a defect", 1),
    ],
)
async def test_a_question_that_goes_wrong_is_answered_all_the_same(
    error: Exception, said: str, logged: int, caplog: pytest.LogCaptureFixture
) -> None:
    async def remember(*_: object) -> None:
        raise error

    sent: list[Message] = []
    flow = SimpleNamespace(route=SimpleNamespace(remember=remember))
    seat = seat_module.Seat(0, *[None] * 9)  # type: ignore[arg-type]
    seat.held[7] = seat_module.Held(None, flow)  # type: ignore[arg-type]
    seat._link = SimpleNamespace(send=sent.append)  # type: ignore[assignment]
    await seat._hear((REMEMBER, 1, 7, "upload-1", 1000))
    await asyncio.wait(seat._remembering)
    assert sent == [(REMEMBERED, 1, said)]
    assert caplog.text.count("Traceback") == logged
    assert (str(error) in caplog.text) == bool(logged)


async def test_a_process_that_hangs_is_killed(hall: Hall, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seat_module, "SILENCE", 5.0)
    monkeypatch.setattr(crew_module, "LOOK_EVERY", 0.05)
    assert await hall.run("mute") == {Outcome.VERIFIED: 40}
    (ended,) = hall.lab.of(WorkerEnded)
    assert ended.how == "by signal 9"
    hall.check_events()


async def test_who_stood_still_itself_calls_nobody_hung(
    hall: Hall, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As a paused container, or a job that a shell stopped.
    monkeypatch.setattr(crew_module, "LOOK_EVERY", 0.2)
    crew = ProcessCrew(lambda: Child(hall._command, []), [], hall.lab.stop, hall._tell, hall._tidy)
    looked = asyncio.Event()
    crew._seats.append(SimpleNamespace(check_pulse=looked.set))  # type: ignore[arg-type]
    watching = asyncio.create_task(crew._watch())
    await asyncio.sleep(0)
    time.sleep(1.0)
    await asyncio.sleep(0.01)
    assert not looked.is_set()
    await looked.wait()  # it was not the end of looking
    watching.cancel()


async def test_a_process_that_cannot_be_started_is_started_later(
    hall: Hall, monkeypatch: pytest.MonkeyPatch
) -> None:
    starts = itertools.count(1)

    class Refused(Child):
        """A process that the system has no memory for, the second time."""

        def __init__(self, command: Callable[[int], Sequence[str]], lease: Sequence[int]) -> None:
            if next(starts) == 2:
                raise OSError(errno.ENOMEM, "Cannot allocate memory")
            super().__init__(command, lease)

    monkeypatch.setattr(sys.modules[__name__], "Child", Refused)
    assert await hall.run("dies") == {Outcome.VERIFIED: 40}
    assert [event.how for event in hall.lab.of(WorkerEnded)] == [
        "with exit code 9",
        "as it could not be started (Cannot allocate memory)",
    ]
    hall.check_events()


async def test_when_no_process_lives_all_ends(hall: Hall, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seat_module, "LONGEST_PAUSE", 0.01)
    with pytest.raises(ExceptionGroup) as caught:
        await hall.run("dead", once=False)
    (error,) = caught.value.exceptions
    while isinstance(error, ExceptionGroup):
        (error,) = error.exceptions
    assert isinstance(error, WorkerLost)
    assert "5 times in a row" in str(error)


async def test_a_stop_gives_nothing_out_any_more(hall: Hall) -> None:
    def stop(event: Event) -> None:
        if isinstance(event, TransferEnded):
            hall.lab.stop.set()

    hall.on_event = stop
    done = await hall.run("", "", places=1)
    assert done[Outcome.VERIFIED] >= 1
    assert done.total() == 40
    hall.check_events()

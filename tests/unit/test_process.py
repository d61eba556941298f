"""What several processes share: CPUs, limits, transfers that come back, the right to the state."""

from __future__ import annotations

import asyncio
import os
import pickle
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3flow.app import posts, worker_processes
from s3flow.config import Settings, load
from s3flow.engine.wiring import Pace, Share
from s3flow.errors import ConfigError, StateLocked
from s3flow.process import Ending, heeding_stops, unless, usable_cpus
from s3flow.state.sqlite import open_sqlite
from tests.e2e import program as toml
from tests.unit.lab import FLOW

CPUS = len(os.sched_getaffinity(0))


def cgroup(root: Path, **quotas: str) -> Path:
    """Make a machine whose process is in the group a/b, with these quotas of the group and above."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text("1:name=systemd:/x\n0::/a/b\n")
    for name, quota in quotas.items():
        folder = root / "sys/fs/cgroup" / {"group": "a/b", "above": "a", "top": "."}[name]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "cpu.max").write_text(quota + "\n")
    return root


@pytest.mark.parametrize(
    ("quotas", "expected"),
    [
        ({}, CPUS),
        ({"group": "max 100000"}, CPUS),
        ({"group": "100000 100000"}, 1),
        ({"group": "10000 100000"}, 1),
        ({"group": "150000 100000"}, min(2, CPUS)),
        ({"group": "max 100000", "above": "90000 100000"}, 1),
        ({"top": "100000 100000"}, 1),
    ],
)
def test_a_quota_counts_as_cpus(tmp_path: Path, quotas: dict[str, str], expected: int) -> None:
    assert usable_cpus(cgroup(tmp_path, **quotas)) == expected


def test_a_system_without_cgroups_has_its_cpus(tmp_path: Path) -> None:
    assert usable_cpus(tmp_path) == CPUS


@given(st.integers(0, 10_000), st.integers(1, 256))
def test_shares_add_up(total: int, of: int) -> None:
    shares = [Share(number, of).places(total) for number in range(of)]
    assert sum(shares) == total
    assert max(shares) - min(shares) <= 1


def test_a_flow_has_its_part_of_a_process() -> None:
    paces = [Pace(concurrency=7, share=Share(number, 2)) for number in range(2)]
    assert [pace.concurrency_of(FLOW) for pace in paces] == [4, 3]
    assert [pace.concurrency_of(replace(FLOW, concurrency=1)) for pace in paces] == [1, 0]


async def test_the_lock_lasts_as_long_as_a_process_that_inherited_it(tmp_path: Path) -> None:
    state = await open_sqlite(tmp_path / "state.db")
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=-1, pass_fds=state.lease)
    await state.close()
    with child:
        with pytest.raises(StateLocked):
            await open_sqlite(tmp_path / "state.db")
        child.communicate(b"\n")
    await (await open_sqlite(tmp_path / "state.db")).close()


async def test_orphans_that_die_at_once_are_waited_for(tmp_path: Path) -> None:
    code = (
        "import subprocess, sys; from pathlib import Path; from s3flow.state.lock import StateLock\n"
        "lock = StateLock(Path(sys.argv[1]))\n"
        "subprocess.Popen([sys.executable, '-c', 'input()'], pass_fds=(lock.fileno(),))"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "state.db")]
    holder = subprocess.Popen(command, stdin=subprocess.PIPE)
    assert holder.stdin is not None
    holder.wait()  # its child goes on, with the lock, until its input ends
    opening = asyncio.create_task(open_sqlite(tmp_path / "state.db"))
    await asyncio.sleep(0.2)
    assert not opening.done()
    holder.stdin.close()
    await (await opening).close()


def settings(folder: Path, **daemon: object) -> Settings:
    """Load a configuration with a flow of its own limits."""
    text = toml.document(
        {"state": "sqlite:///state.db", **daemon},
        {
            "old": {
                "type": "s3",
                "url": "http://127.0.0.1:1",
                "secret_access_key": "deep",
                "access_key_id": "k",
            },
            "disk": {"type": "local", "path": "disk"},
        },
        [{"name": "docs", "source": "old:docs/", "target": "disk:", "concurrency": 3}],
    )
    (folder / "config.toml").write_text(text)
    return load(folder / "config.toml", {})


def test_the_number_of_processes(tmp_path: Path) -> None:
    assert worker_processes(settings(tmp_path).daemon) == 1
    assert worker_processes(settings(tmp_path, workers=3).daemon) == 3
    assert worker_processes(settings(tmp_path, workers="auto").daemon) == CPUS
    assert worker_processes(settings(tmp_path, workers="auto", concurrency=1).daemon) == 1
    assert worker_processes(settings(tmp_path, workers="auto", memory="1MiB").daemon) == 1


@pytest.mark.parametrize(
    ("daemon", "told"),
    [
        ({"workers": 0}, 'write 1 or more, or "auto"'),
        ({"workers": "many"}, "daemon.workers"),
        ({"workers": True}, "daemon.workers"),
        ({"workers": 9, "concurrency": 8}, "9 processes share concurrency (8)"),
        ({"workers": 9, "memory": "8MiB"}, "memory (8 MiB)"),
    ],
)
def test_impossible_numbers_of_processes(
    tmp_path: Path, daemon: dict[str, object], told: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        settings(tmp_path, **daemon)
    assert told in str(caught.value)


def test_limits_hold_over_all_processes(tmp_path: Path) -> None:
    limits = {"concurrency": 10, "memory": "7MiB", "max_bytes_per_s": 900}
    chosen = settings(tmp_path, **limits, max_requests_per_s=100)
    made = posts(chosen, chosen.flow_specs(), 3)
    assert sum(post.places["docs"] for post in made) == 3
    paces = [pickle.loads(post.orders).pace for post in made]
    assert sum(pace.share.places(pace.concurrency) for pace in paces) == 10
    assert sum(pace.share.places(pace.bodies) for pace in paces) == 7
    assert sum(pace.max_bytes_per_s / pace.share.of for pace in paces) == pytest.approx(900)
    assert sum(pace.max_requests_per_s * pace.share.requests for pace in paces) <= 100
    assert "deep" not in repr(pickle.loads(made[0].orders))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_command_in_the_background_of_a_shell_can_be_ended_too(number: signal.Signals) -> None:
    """There SIGINT is ignored from the start."""
    code = (
        "import asyncio, os, signal, sys\n"
        "from s3flow import process\n"
        "async def wait() -> None:\n"
        "    os.kill(os.getpid(), int(sys.argv[1]))\n"
        "    try:\n"
        "        await asyncio.sleep(60)\n"
        "    finally:\n"
        "        print('cleaned up')\n"
        "signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "process.end_as_by_a_key()\n"
        "try:\n"
        "    process.run_async(wait())\n"
        "except KeyboardInterrupt:\n"
        "    sys.exit(130)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(int(number))], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (130, "cleaned up\n"), done.stderr


def test_a_third_signal_does_not_even_wait_for_a_disk_that_never_answers() -> None:
    code = (
        "import asyncio, time\n"
        "from s3flow import app, process\n"
        "from s3flow.stores.local.threads import Threads\n"
        "async def hang() -> None:\n"
        "    work = app.Work(None, [])\n"
        "    with process.heeding_stops(work._on_stop):\n"
        "        asking = asyncio.create_task(Threads('disk').run(time.sleep, 60))\n"
        "        print('asking', flush=True)\n"
        "        await work.stop.wait()\n"
        "        print('stopping', flush=True)\n"
        "        await work.abandon.wait()\n"
        "        asking.cancel()\n"
        "        print('leaving', flush=True)\n"
        "        await asyncio.wait({asking})\n"
        "process.run_async(hang())\n"
    )
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for expected in ("asking", "stopping", "leaving"):
            assert process.stdout.readline() == f"{expected}\n"
            process.terminate()
        # Without it the disk would answer after a minute, and all would have ended well.
        assert process.wait() == Ending.INTERRUPTED


async def test_work_is_given_up_when_it_is_to_stop_and_its_errors_are_told() -> None:
    stop, begun, ended = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def wait() -> int:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        return 1

    async def fail() -> int:
        raise OSError("the disk")

    async def done() -> int:
        return 2

    assert await unless(stop, done()) == 2
    with pytest.raises(OSError, match="the disk"):
        await unless(stop, fail())
    waiting = asyncio.create_task(unless(stop, wait()))
    await begun.wait()
    stop.set()
    assert await waiting is None
    assert ended.is_set()


async def test_stops_mean_afterwards_what_they_did_before() -> None:
    before = [signal.getsignal(it) for it in (signal.SIGTERM, signal.SIGINT)]
    stopped = asyncio.Event()
    with heeding_stops(stopped.set):
        signal.raise_signal(signal.SIGTERM)
        await stopped.wait()
    assert [signal.getsignal(it) for it in (signal.SIGTERM, signal.SIGINT)] == before

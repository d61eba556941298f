"""The programme in small: servers, stores and clients that mean harm."""

from __future__ import annotations

import asyncio
import tracemalloc
from pathlib import Path

import pytest
import uvloop

from s3flow.wire.http import Pool
from tests.torture import bugs, hostile
from tests.torture.hostile_authorities import mislead
from tests.torture.hostile_servers import ENDLESS, converse, endless
from tests.torture.hostile_tls import ANSWERS, HANDSHAKES, NAMES, answered, refused
from tests.torture.programme import Broken, Task
from tests.unit.hostile import Authority

MIB = 1024 * 1024


def test_servers_stores_and_clients_that_mean_harm(tmp_path: Path) -> None:
    told = hostile.run(Task(tmp_path, seed=1, rounds=3))
    assert told["exact answers"] > 120
    assert told["breaches refused"] > 48
    assert told["lies refused"] > 150


@pytest.mark.parametrize("what", ENDLESS)
async def test_what_has_no_end_is_held_in_little_memory(what: str) -> None:
    await endless(what)  # what is imported and kept on the way
    tracemalloc.start()
    try:
        await endless(what)
        assert tracemalloc.get_traced_memory()[1] < 4 * MIB  # the server's part as well
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("kind", "what"),
    [
        ("sts", "endless body"),
        ("instance", "endless chunks"),
        ("container", "bomb"),
        ("container", "endless headers"),
        ("instance", "trickle of a body without length"),
        ("identity", "redirect with the body"),
    ],
)
async def test_an_authority_that_means_harm_has_no_end_of_memory_or_time_and_no_followers(
    kind: str, what: str
) -> None:
    await mislead(kind, "redirect")  # what is imported and kept on the way
    tracemalloc.start()
    try:
        assert await mislead(kind, what)
        assert tracemalloc.get_traced_memory()[1] < 24 * MIB  # botocore's models of STS as well
    finally:
        tracemalloc.stop()


LOOPS = {"asyncio": asyncio.run, "uvloop": uvloop.run}  # each has a TLS of its own


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("what", ANSWERS)
def test_what_tls_does_not_end_is_not_taken_for_whole(tmp_path: Path, what: str, loop: str) -> None:
    authority = Authority(tmp_path, "trusted")
    for seed in range(4):
        LOOPS[loop](answered(what, seed, authority))


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("what", [*NAMES, *HANDSHAKES])
def test_who_cannot_shake_hands_is_not_spoken_to(tmp_path: Path, what: str, loop: str) -> None:
    authority, stranger = Authority(tmp_path, "trusted"), Authority(tmp_path, "stranger")
    LOOPS[loop](refused(what, 1, authority, stranger))


def test_a_connection_that_is_used_again_too_early_is_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Pool, "_done", Pool._done)
    bugs.plant("reused-dirty-connection")
    with pytest.raises(Broken, match="of seed"):
        asyncio.run(converse(1, 500))

"""kill -9 at any instant: the next start goes on, repeats nothing, and leaves nothing behind."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from tests.e2e.conftest import MIB, Stage
from tests.e2e.content import Crowd, digests_of_bucket, digests_of_folder, uploads_left
from tests.e2e.program import FlowStatus, Program, adds_up, watched
from tests.e2e.proxy import Proxy
from tests.e2e.relaying import Request, parts_sent_twice

KILLS = 10
PAGE_DELAY = 0.3  # seconds that a page of the source's listing takes, so that kills hit that too
# Of a killed listing: the page that was being fetched, and the one that was not merged yet.
PAGES_AT_HAND = 2


@dataclass(slots=True)
class Killings:
    """Runs a program under kills, and remembers what they hit and what each life asked for."""

    program: Program
    proxies: Sequence[Proxy]
    seed: int
    longest: float  # seconds from a life's first request to its end
    at_work: int = 0
    lives: list[list[list[Request]]] = field(default_factory=list)  # by life and proxy

    def run(self) -> None:
        """Start and kill at a random moment, ten times; then let it finish."""
        rng = random.Random(self.seed)
        for _ in range(KILLS):
            before = self._seen()
            running = self.program.start("sync")
            running.until(lambda before=before: self._seen() != before)
            time.sleep(rng.uniform(0.05, self.longest))
            ended = running.process.poll()
            assert ended is None, f"it was done before the kill, with {ended}: slow it down"
            self.at_work += any(proxy.in_flight() for proxy in self.proxies)
            running.kill()
            for proxy in self.proxies:
                settle(proxy)
            self._remember(before)
        before = self._seen()
        self.program.run("sync")
        self._remember(before)
        assert self.at_work >= KILLS // 2, f"only {self.at_work} kills hit work in flight"

    def _seen(self) -> list[int]:
        return [len(proxy.requests) for proxy in self.proxies]

    def _remember(self, before: list[int]) -> None:
        self.lives.append(
            [proxy.requests[start:] for proxy, start in zip(self.proxies, before, strict=True)]
        )


def settle(proxy: Proxy) -> None:
    """Wait until the server has answered what it was asked in full before the kill."""
    before = -1
    while before != (before := sum(bool(request.answered) for request in tuple(proxy.requests))):
        time.sleep(0.05)


def check_pages(lives: Sequence[Sequence[Request]], bucket: str) -> int:
    """Check that no life goes over pages that an earlier one had merged; says how many it repeats."""
    reached, repeated = "", 0
    for life in lives:
        pages = [
            request.query.get("start-after", "")
            for request in life
            if request.kind == "list" and request.bucket == bucket
        ]
        assert len(pages) == len(set(pages)), "a page was fetched twice in one life"
        if pages and pages[0] == "":
            reached = ""  # a new walk: the one before had come to its end, or to nothing
        again = sum(page < reached for page in pages)
        assert again <= PAGES_AT_HAND
        repeated += again
        reached = max([reached, *pages])
    return repeated


def check_statuses(seen: list[FlowStatus], expected: int) -> None:
    """Check what `status --json` said meanwhile: it adds up, and nothing done was forgotten."""
    assert len(seen) > KILLS
    assert [flow for flow in seen if not adds_up(flow)] == []
    for name in {flow["name"] for flow in seen}:
        verified = [flow["objects"]["verified"] for flow in seen if flow["name"] == name]
        assert verified == sorted(verified), "something verified was forgotten"
        assert any(0 < number < expected for number in verified), "nothing was read in mid-run"


def under_fire(
    stage: Stage,
    bucket: str,
    expected: int,
    *,
    seed: int,
    pace: int,
    longest: float,
    **flow: object,
) -> None:
    """Move *bucket* to the target bucket and to disk at *pace* bytes per second, under kills."""
    slowly = {
        "delay": lambda request: (
            PAGE_DELAY if request.kind == "list" and request.bucket == bucket else 0
        )
    }
    to_s3, to_disk = stage.proxy(**slowly), stage.proxy(**slowly)
    stage.endpoints["again"] = stage.endpoints["ours"] | {"url": to_disk.url}
    stage.through(to_s3, "ours", "theirs")
    program = stage.program(
        {"name": "s3", "source": f"ours:{bucket}/", **flow},
        {"name": "disk", "source": f"again:{bucket}/", "target": "nas:copy/", **flow},
        max_bytes_per_s=pace,
    )
    killings = Killings(program, (to_s3, to_disk), seed, longest)
    with watched(program) as seen:
        killings.run()
    check_statuses(seen, expected)
    for number in range(2):
        check_pages([life[number] for life in killings.lives], bucket)
    for status in program.status().values():
        assert status["objects"]["verified"] == expected
        assert status["objects"]["failed"] == status["objects"]["pending"] == 0
        assert sum(status["proofs"].values()) == expected
        assert set(status["proofs"]) <= {"checksum", "etag", "md5"}
        assert status["methods"]["multipart"]
    assert to_s3.counts()["upload_part"] > 10
    assert parts_sent_twice(to_s3.requests) == []
    assert uploads_left(stage.theirs, stage.target) == []


def check_bytes(stage: Stage, expected: dict[str, str]) -> None:
    """Compare every byte. Every file below the folder counts: one left there is a difference."""
    assert digests_of_folder(stage.nas) == {f"copy/{key}": each for key, each in expected.items()}
    assert digests_of_bucket(stage.theirs, stage.target) == expected


def test_ten_kills_change_nothing(stage: Stage, crowd: Crowd) -> None:
    expected = crowd.below("small/", "large/")
    under_fire(
        stage,
        crowd.bucket,
        len(expected),
        seed=20_261,
        pace=40 * MIB,
        longest=1.2,
        exclude=["huge/*"],
        multipart_threshold=16 * MIB,
        part_size=8 * MIB,
        lanes=2,
    )
    check_bytes(stage, expected)

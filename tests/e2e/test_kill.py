"""kill -9 at any instant: the next start goes on, repeats nothing, and leaves nothing behind."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass, field

from tests.e2e.conftest import MIB, Stage
from tests.e2e.content import Crowd, digests_of_bucket, digests_of_folder, uploads_left
from tests.e2e.program import FlowStatus, Program, adds_up, watched
from tests.e2e.proxy import Proxy, Request, parts_sent_twice

KILLS = 10
PACE = 48 * MIB  # bytes per second, so that the work outlasts the kills
PAGE_DELAY = 0.3  # seconds that a page of the source's listing takes, so that kills hit that too
# Of a killed listing: the page that was being fetched, and the one that was not merged yet.
PAGES_AT_HAND = 2


@dataclass(slots=True)
class Killings:
    """What ten kills hit: lives that had requests open, and each life's requests."""

    seed: int
    kills: int = 0
    at_work: int = 0
    lives: list[list[Request]] = field(default_factory=list)

    def run(self, program: Program, proxy: Proxy, kills: int = KILLS) -> None:
        """Start, kill at a random moment, start again, …; the last one may finish."""
        rng = random.Random(self.seed)
        while self.kills < kills:
            before = len(proxy.requests)
            running = program.start("sync")
            running.until(lambda start=before: len(proxy.requests) > start)
            time.sleep(rng.uniform(0.05, 1.3))
            if running.process.poll() is not None:
                running.wait(0)
                self.lives.append(proxy.requests[before:])
                return
            self.at_work += proxy.in_flight() > 0
            running.kill()
            self.kills += 1
            self.lives.append(proxy.requests[before:])
            settle(proxy)
        before = len(proxy.requests)
        program.run("sync")
        self.lives.append(proxy.requests[before:])


def settle(proxy: Proxy) -> None:
    """Wait until the server has answered what it was asked in full before the kill."""
    before = -1
    while before != (before := sum(bool(request.answered) for request in tuple(proxy.requests))):
        time.sleep(0.05)


def no_page_twice(killings: Killings, bucket: str) -> None:
    """Check that no life of an unfinished listing fetches what an earlier one had merged."""
    reached = ""
    for life in killings.lives:
        pages = [
            request.query.get("start-after", "")
            for request in life
            if request.kind == "list" and request.bucket == bucket
        ]
        assert len(pages) == len(set(pages)), "a page was fetched twice in one life"
        if pages and pages[0] == "":
            reached = ""  # a new walk: the one before had come to its end, or to nothing
        assert sum(page < reached for page in pages) <= PAGES_AT_HAND
        reached = max([reached, *pages])


def check_statuses(seen: list[FlowStatus], expected: int) -> None:
    assert len(seen) > KILLS
    assert [flow for flow in seen if not adds_up(flow)] == []
    verified = [flow["objects"]["verified"] for flow in seen]
    assert verified == sorted(verified), "something verified was forgotten"
    assert any(0 < number < expected for number in verified), "nothing was read in mid-run"


def move_under_fire(
    stage: Stage, crowd: Crowd, target: str, seed: int
) -> tuple[Program, Proxy, Killings]:
    proxy = stage.proxy(
        delay=lambda request: (
            PAGE_DELAY if request.kind == "list" and request.bucket == crowd.bucket else 0
        )
    )
    flow = {
        "source": f"ours:{crowd.bucket}/",
        "target": target,
        "exclude": ["huge/*"],
        "multipart_threshold": 16 * MIB,
        "part_size": 8 * MIB,
        "lanes": 2,
    }
    program = stage.program(flow, max_bytes_per_s=PACE)
    expected = crowd.below("small/", "large/")
    killings = Killings(seed)
    with watched(program) as seen:
        killings.run(program, proxy)
    assert killings.at_work >= KILLS // 2, f"only {killings} hit work in flight"
    check_statuses(seen, len(expected))
    no_page_twice(killings, crowd.bucket)
    flow_status = program.flow()
    assert flow_status["objects"]["verified"] == len(expected)
    assert flow_status["objects"]["failed"] == flow_status["objects"]["pending"] == 0
    assert sum(flow_status["proofs"].values()) == len(expected)
    assert "size" not in flow_status["proofs"]
    return program, proxy, killings


def test_ten_kills_on_the_way_to_s3(stage: Stage, crowd: Crowd) -> None:
    _, proxy, _ = move_under_fire(stage, crowd, f"theirs:{stage.target}/", seed=20_261)
    assert digests_of_bucket(stage.theirs, stage.target) == crowd.below("small/", "large/")
    assert parts_sent_twice(proxy.requests) == []
    assert proxy.counts()["upload_part"] >= 2 * 96 // 8
    assert uploads_left(stage.theirs, stage.target) == []


def test_ten_kills_on_the_way_to_disk(stage: Stage, crowd: Crowd) -> None:
    move_under_fire(stage, crowd, "nas:copy/", seed=20_262)
    # Every file below the folder counts: a temporary one left anywhere is a difference.
    assert below_copy(digests_of_folder(stage.nas)) == crowd.below("small/", "large/")


def below_copy(digests: dict[str, str]) -> dict[str, str]:
    return {name.removeprefix("copy/"): digest for name, digest in digests.items()}

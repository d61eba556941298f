"""Archived objects end to end: each restore is asked for once, through kills; only so many at a time."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import servers
from tests.e2e.conftest import Stage, staged
from tests.e2e.program import adds_up
from tests.e2e.proxy import Proxy
from tests.e2e.relaying import Request

OBJECTS = 300
CLASSES = ("GLACIER", "STANDARD", "STANDARD")
MOST = 10
THAW = 0.8  # seconds


@pytest.fixture
def frozen_stage(tmp_path: Path) -> Iterator[Stage]:
    """Give a stage on a ministack of its own, whose restores take a while."""
    with servers.ministack(restore_seconds=THAW) as server, staged(server, tmp_path) as stage:
        yield stage


def fill(stage: Stage) -> dict[str, bytes]:
    bodies = {f"{number:03d}": b"body %d" % number for number in range(OBJECTS)}
    for number, (key, body) in enumerate(bodies.items()):
        stage.put(key, body, StorageClass=CLASSES[number % len(CLASSES)])
    return bodies


def restores(proxy: Proxy) -> list[Request]:
    return [request for request in proxy.requests if is_restore(request)]


def is_restore(request: Request) -> bool:
    return request.method == "POST" and "restore" in request.query


def most_at_once(moments: list[float]) -> int:
    """Say how many restores the server had under way at a time: each takes so long from its request on."""
    return max(sum(0 <= later - first < THAW for first in moments) for later in moments)


@pytest.mark.parametrize("workers", [1, 2])
def test_killed_and_restarted_every_restore_is_asked_for_once(
    frozen_stage: Stage, workers: int
) -> None:
    stage = frozen_stage
    bodies = fill(stage)
    archived = [key for number, key in enumerate(bodies) if number % 3 == 0]
    moments: list[float] = []

    def noted(request: Request) -> float:
        if is_restore(request):
            moments.append(time.monotonic())
        return 0.0

    proxy = stage.proxy(delay=noted)
    flow = {
        "target": "nas:",
        "restore_poll": "300ms",
        "restore_days": 1,
        "max_restores": MOST,
    }
    program = stage.program(flow, workers=workers)
    for wanted in (4, 25, 60):
        running = program.start("sync")
        running.until(lambda wanted=wanted: len(restores(proxy)) >= wanted)
        running.kill()
    running = program.start("sync")
    running.until(lambda: len(restores(proxy)) >= 80)
    running.stop()
    running.wait(code=None)
    program.run("sync")
    asked = Counter(request.key for request in restores(proxy))
    assert asked == Counter(archived)
    assert {request.status for request in restores(proxy)} <= {0, 202}
    assert 1 < most_at_once(moments) <= MOST
    there = {path.name: path.read_bytes() for path in stage.nas.iterdir() if path.is_file()}
    assert {key: there[key] for key in bodies} == bodies
    status = program.flow()
    assert adds_up(status)
    assert status["objects"]["verified"] == OBJECTS
    assert status["thawing"] is None


def test_a_queue_that_tells_of_restores_is_faster_than_the_tiers_times(frozen_stage: Stage) -> None:
    stage = frozen_stage
    with contextlib.closing(stage.server.client(service="sqs")) as sqs:
        url = sqs.create_queue(QueueName=f"q-{stage.source}")["QueueUrl"]
        about = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])
    rule = {"QueueArn": about["Attributes"]["QueueArn"], "Events": ["s3:ObjectRestore:Completed"]}
    stage.ours.put_bucket_notification_configuration(
        Bucket=stage.source, NotificationConfiguration={"QueueConfigurations": [rule]}
    )
    for number in range(5):
        stage.put(f"a b/{number}", b"cold", StorageClass="GLACIER")
    queue = f"{stage.server.url}/{url.split('/', 3)[3]}"
    program = stage.program(
        {"restore_queue": queue, "restore_days": 1, "storage_class": "STANDARD"}
    )
    program.run("sync")  # the first look by time would come after four hours
    assert program.flow()["objects"]["verified"] == 5
    assert stage.there("a b/4") == b"cold"

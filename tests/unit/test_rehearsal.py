"""What a plan makes of where buckets are: AWS's prices, and the border that bytes cross."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from s3flow.config import load
from s3flow.engine.costs import Egress
from s3flow.engine.preview import Preview
from s3flow.engine.wiring import Wiring
from s3flow.errors import NoSuchBucket
from s3flow.model import GIB, Listed, Method
from s3flow.observe.plans import FlowPlan
from s3flow.pricing import borders
from s3flow.rehearsal import priced
from s3flow.stores.local import LocalStore
from s3flow.stores.s3 import S3Settings, S3Store

REGIONS = {"here": "eu-west-1", "there": "eu-west-1", "far": "ap-south-1", "gone": "us-east-1"}


class Located(S3Store):
    """A store whose answers have told where its buckets are; it sends nothing."""

    def region(self, bucket: str) -> str:
        return REGIONS[bucket]

    async def find(self, bucket: str, keys: Sequence[bytes]) -> Mapping[bytes, Listed]:
        if bucket == "gone":
            raise NoSuchBucket("it is not there")
        return {}


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


def store(stack: AsyncExitStack, url: str | None = None) -> S3Store:
    made = Located(S3Settings("s3", url, access_key_id="a", secret_access_key="b"))
    stack.push_async_callback(made.close)
    return made


async def planned(
    stack: AsyncExitStack, folder: Path, target: str, url: str = "", extra: str = ""
) -> FlowPlan:
    """Price a GiB that goes from AWS to *target*."""
    (folder / "nas").mkdir()
    file = folder / "config.toml"
    file.write_text(f"""
        {extra}
        [endpoints.src]
        type = "s3"
        [endpoints.dst]
        type = "s3"
        url = "{url}"
        [endpoints.nas]
        type = "local"
        path = "nas"
        [[flows]]
        name = "one"
        source = "src:here/"
        target = "{target}"
        method = "stream-only"
    """)
    settings = load(file, {})
    (flow,) = settings.flow_specs()
    if flow.target.endpoint == "nas":
        nas = LocalStore("nas", folder / "nas")
        stack.push_async_callback(nas.close)
        wiring = Wiring(flow, store(stack), nas)
    else:
        wiring = Wiring(flow, store(stack), store(stack, url or None))
    seen = Preview()
    seen.count(("transfer", "put"), 1, GIB)
    seen.work.add(
        flow, wiring.target.limits, "here", Listed(b"k", GIB, "e", 0, ""), Method.PUT, now=0
    )
    return await priced(settings, wiring, seen)


def paid(plan: FlowPlan) -> dict[str, float]:
    return {f"{line.what} {line.of}": line.cost for line in plan.cost.lines if line.cost}


@pytest.mark.parametrize(
    ("target", "egress"),
    [
        ("dst:there/", {}),
        ("dst:far/", {"egress region": 0.02}),
        ("nas:", {"egress internet": 0.09}),
    ],
)
async def test_bytes_are_paid_by_the_border_that_they_cross(
    stack: AsyncExitStack, tmp_path: Path, target: str, egress: dict[str, float]
) -> None:
    plan = await planned(stack, tmp_path, target)
    found = paid(plan)
    assert {what: cost for what, cost in found.items() if what.startswith("egress")} == egress
    assert found["get STANDARD"] == 0.0004 / 1000
    assert plan.counted == {("transfer", "put"): (1, GIB)}
    assert any("2026" in line for line in plan.assumptions)


async def test_another_service_is_free_to_write_to_and_far_away(
    stack: AsyncExitStack, tmp_path: Path
) -> None:
    plan = await planned(stack, tmp_path, "dst:there/", "http://127.0.0.1:9000")
    found = paid(plan)
    assert found["egress internet"] == 0.09
    assert not [what for what in found if what.startswith("put")]
    assert any(line.startswith("dst charges nothing") for line in plan.assumptions)


@pytest.mark.parametrize("place", ["[prices]", "[endpoints.src.prices]"])
async def test_whoever_knows_where_s3flow_runs_says_so(
    stack: AsyncExitStack, tmp_path: Path, place: str
) -> None:
    extra = f'{place}\negress = "none"\n'
    plan = await planned(stack, tmp_path, "nas:", extra=extra)
    assert not [what for what in paid(plan) if what.startswith("egress")]


async def test_a_bucket_that_does_not_say_where_it_is_is_told(
    stack: AsyncExitStack, tmp_path: Path
) -> None:
    plan = await planned(stack, tmp_path, "dst:gone/")
    assert paid(plan)["egress region"] == 0.02
    assert any("gone is in us-east-1" in line for line in plan.assumptions)
    (told,) = [line for line in plan.assumptions if "gone" in line]
    assert "no_such_bucket" in told


async def test_without_objects_nobody_is_asked(stack: AsyncExitStack, tmp_path: Path) -> None:
    plan = await planned(stack, tmp_path, "dst:gone/")
    assert plan.cost.objects == 1
    (flow,) = load(tmp_path / "config.toml", {}).flow_specs()
    wiring = Wiring(flow, store(stack), store(stack))
    assert await borders(wiring, []) == ({}, [])
    assert (await borders(wiring, ["here"]))[0] == {"here": Egress.REGION}

"""Copies inside the store: proven, resumed, and streamed instead where the store does not make them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from s3flow.engine.verdicts import REFUSALS
from s3flow.errors import ConfigError
from s3flow.events import BytesMoved
from s3flow.model import Limits, Outcome, Place
from s3flow.policies import MethodPolicy, Overwrite, TagPolicy
from s3flow.stores.memory import MemoryStore
from tests.faults import Call, Faulty
from tests.unit.copies_kit import COPIES, COUNT, SIZE, calls, lab, rated, refusing, watched
from tests.unit.lab import QUICK, Lab, store

__all__ = ["lab"]  # a fixture


# --- one request ----------------------------------------------------------------------------------


async def test_a_small_object_takes_one_request_and_no_byte_passes(lab: Lab) -> None:
    for number in range(20):
        lab.put(b"%d" % number, 100 + number)
    lab.put(b"empty", 0)
    source, target = watched(lab)
    assert await lab.sync() == {Outcome.VERIFIED: 21}
    assert lab.differences() == []
    assert await lab.proofs() == {("server_copy", "etag"): 21}
    # Once for the bucket, and for what is empty, which may redirect.
    asked = calls(source)
    assert 1 <= asked.pop("is_website") <= QUICK.concurrency
    assert asked == {"list_page": 1, "head_object": 1}
    assert calls(target) == {"copy_object": 21, "find": 1}
    assert sum(event.bytes for event in lab.of(BytesMoved)) == sum(range(100, 120))
    assert rated(lab) == sum(range(100, 120))


async def test_headers_tags_and_storage_class_come_along(lab: Lab) -> None:
    about = {"content-type": "text/x", "x-amz-meta-a": "b"}
    lab.put(b"small", 10, headers=about, tags={"k": "v"}, storage_class="STANDARD_IA")
    lab.put(
        b"parts", SIZE, part_size=1000, headers=about, tags={"k": "v"}, storage_class="STANDARD_IA"
    )
    assert await lab.sync() == {Outcome.VERIFIED: 2}
    assert set(await lab.proofs()) == {("server_copy", "etag"), ("server_multipart", "etag")}
    for key in (b"small", b"parts"):
        copy = lab.dst.peek("to", key)
        assert copy is not None
        assert about.items() <= dict(copy.headers).items()
        assert copy.tags == {"k": "v"}
        assert copy.storage_class == "STANDARD_IA"


@pytest.mark.parametrize("size", [0, 10])
@pytest.mark.parametrize("is_website", [False, True])
async def test_redirects_come_along(lab: Lab, size: int, is_website: bool) -> None:
    redirect = {"x-amz-website-redirect-location": "/elsewhere"}
    lab.put(b"small", size, headers=redirect)
    lab.put(b"parts", SIZE, part_size=1000, headers=redirect)
    if is_website:
        lab.src.websites.add("from")
    assert await lab.sync() == {Outcome.VERIFIED: 2}
    assert {method for method, _ in await lab.proofs()} == {"server_copy", "server_multipart"}
    for key in (b"small", b"parts"):
        copy = lab.dst.peek("to", key)
        assert copy is not None
        kept = is_website or size == 0 or key == b"parts"
        assert (redirect.items() <= dict(copy.headers).items()) is kept


async def test_a_storage_class_is_mapped_and_tags_are_dropped_on_demand(lab: Lab) -> None:
    lab.change(storage_class_map={"STANDARD_IA": "STANDARD"}, tags=TagPolicy.DROP)
    lab.put(b"a", 10, tags={"k": "v"}, storage_class="STANDARD_IA")
    _, target = watched(lab)
    assert await lab.sync() == {Outcome.VERIFIED: 1}
    assert target.of("copy_object")[0].kwargs["storage_class"] == "STANDARD"  # no store's default
    copy = lab.dst.peek("to", b"a")
    assert copy is not None
    assert (copy.tags, copy.storage_class) == ({}, "STANDARD")


async def test_copies_need_no_room_for_bodies(lab: Lab) -> None:
    lab.put(b"a", 100_000)
    lab.put(b"b", SIZE, part_size=1000)
    lab.target = Slots(lab.target, lab)
    assert await lab.sync() == {Outcome.VERIFIED: 2}


class Slots(Faulty):
    """Sees that no body's place is taken while a copy is made."""

    def __init__(self, inner: Any, lab: Lab) -> None:
        super().__init__(inner)
        self.lab = lab

    async def around(self, call: Call, go: Callable[[], Awaitable[Any]]) -> Any:
        if call.method in COPIES:
            assert self.lab.daemon is not None
            slots = self.lab.daemon.flows["flow"].route.slots
            assert slots._value == QUICK.bodies
        return await go()


# --- parts ----------------------------------------------------------------------------------------


async def test_parts_are_the_source_s_own_and_so_is_the_etag(lab: Lab) -> None:
    lab.put(b"a", SIZE, part_size=1000)
    source, target = watched(lab)
    assert await lab.sync() == {Outcome.VERIFIED: 1}
    assert lab.differences() == []
    assert await lab.proofs() == {("server_multipart", "etag"): 1}
    assert calls(source)["get_object"] == 0
    spans = sorted(call.args[5] for call in target.of("upload_part_copy"))
    assert [span.size for span in spans] == [1000] * 9 + [500]
    assert sum(event.bytes for event in lab.of(BytesMoved)) == SIZE
    assert rated(lab) == SIZE


async def test_what_is_too_large_for_one_request_goes_in_parts(tmp_path: Path) -> None:
    src = store("src", "from", with_checksums=True)
    small = Limits(min_part_size=1, max_put_size=5000)
    lab = Lab(tmp_path, src, store("dst", "to", beside=src, with_checksums=True, limits=small))
    lab.change(part_size=1000)
    lab.put(b"large", 5001)
    lab.put(b"small", 5000)
    assert await lab.sync() == {Outcome.VERIFIED: 2}
    assert lab.differences() == []
    assert await lab.proofs() == {("server_multipart", "checksum"): 1, ("server_copy", "etag"): 1}


async def test_the_flow_s_threshold_is_for_streams_alone(lab: Lab) -> None:
    lab.change(multipart_threshold=1000)
    lab.put(b"a", SIZE)
    assert await lab.sync() == {Outcome.VERIFIED: 1}
    assert await lab.proofs() == {("server_copy", "etag"): 1}


@pytest.mark.parametrize("with_checksums", [False, True])
async def test_parts_that_cannot_be_repeated_are_copied_as_a_whole(
    tmp_path: Path, with_checksums: bool
) -> None:
    src = store("src", "from", with_checksums=with_checksums)
    dst = store("dst", "to", beside=src, with_checksums=with_checksums, strict_parts=True)
    lab = Lab(tmp_path, src, dst)
    lab.put(b"a", SIZE, part_size=1000)  # less than the target takes
    assert await lab.sync() == {Outcome.VERIFIED: 1}
    assert lab.differences() == []
    proof = "checksum" if with_checksums else "size"
    assert await lab.proofs() == {("server_copy", proof): 1}


@pytest.mark.parametrize("after", [1, 5])
async def test_a_stopped_copy_goes_on_with_the_missing_parts_only(lab: Lab, after: int) -> None:
    lab.put(b"a", SIZE, part_size=1000)
    _, target = watched(lab)
    lab.stop_at(BytesMoved, after)
    assert await lab.sync() == {Outcome.PENDING: 1}
    assert len(lab.uploads()) == 1
    lab.subscribers.clear()
    assert await lab.sync() == {Outcome.VERIFIED: 1}
    assert sorted(call.args[4] for call in target.of("upload_part_copy")) == [*range(1, COUNT + 1)]
    assert len(target.of("create_multipart_upload")) == 1
    assert lab.differences() == []
    assert lab.uploads() == []


async def test_what_began_as_a_stream_goes_on_as_one(lab: Lab) -> None:
    lab.change(method=MethodPolicy.STREAM_ONLY, multipart_threshold=1000)
    lab.put(b"a", SIZE)
    lab.stop_at(BytesMoved, 3)
    await lab.sync()
    lab.subscribers.clear()
    lab.change(method=MethodPolicy.SERVER_FIRST)
    _, target = watched(lab)
    assert await lab.sync() == {Outcome.VERIFIED: 1}
    assert set(calls(target)) & COPIES == set()
    assert len(target.of("upload_part")) < COUNT
    assert lab.differences() == []
    assert lab.uploads() == []


async def test_a_stream_s_leftover_is_removed_where_only_copies_are_allowed(lab: Lab) -> None:
    lab.change(method=MethodPolicy.STREAM_ONLY, multipart_threshold=1000)
    lab.put(b"a", SIZE)
    lab.stop_at(BytesMoved, 3)
    await lab.sync()
    lab.subscribers.clear()
    lab.change(method=MethodPolicy.SERVER_ONLY)
    assert await lab.sync() == {Outcome.VERIFIED: 1}
    assert await lab.proofs() == {("server_copy", "etag"): 1}
    assert lab.uploads() == []


# --- policies -------------------------------------------------------------------------------------


async def test_stream_only_copies_nothing_inside(lab: Lab) -> None:
    lab.change(method=MethodPolicy.STREAM_ONLY)
    lab.put(b"a", 100)
    _, target = watched(lab)
    assert await lab.sync() == {Outcome.VERIFIED: 1}
    assert set(calls(target)) & COPIES == set()


async def test_server_only_streams_nothing_and_says_what_to_do(lab: Lab) -> None:
    lab.change(method=MethodPolicy.SERVER_ONLY)
    for number in range(REFUSALS + 2):
        lab.put(b"%d" % number, 100)
    lab.target = target = refusing(lab.dst)
    assert await lab.sync() == {Outcome.FAILED: REFUSALS + 2}
    assert set((await lab.failures()).values()) == {"copy_refused"}
    assert calls(target)["put_object"] == 0
    [[message]] = lab.query("SELECT DISTINCT message FROM objects WHERE message LIKE '%/0:%'")
    assert "no (403)" in message
    assert "server-first" in message


async def test_server_only_between_two_services_is_refused_at_once(tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    lab.change(method=MethodPolicy.SERVER_ONLY)
    lab.put(b"a", 100)
    with pytest.raises(ConfigError, match="server-first"):
        await lab.sync()


async def test_two_services_copy_nothing_between_them(tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    lab.put(b"a", 100)
    _, target = watched(lab)
    assert await lab.sync() == {Outcome.VERIFIED: 1}
    assert set(calls(target)) & COPIES == set()


# --- the very same object -------------------------------------------------------------------------


async def test_an_object_is_never_copied_onto_itself(tmp_path: Path) -> None:
    src = store("src", "from")
    lab = Lab(tmp_path, src, store("dst", "from", beside=src))
    lab.change(target=Place("dst", "from", b""), overwrite=Overwrite.ALWAYS)
    data = lab.put(b"a", 100)
    _, target = watched(lab)
    assert await lab.sync() == {Outcome.FAILED: 1}
    assert await lab.failures() == {b"a": "same_object"}
    assert calls(target)["copy_object"] == calls(target)["put_object"] == 0
    found = src.peek("from", b"a")
    assert found is not None
    assert found.data == data


async def test_one_name_in_two_accounts_is_no_copy_onto_itself(tmp_path: Path) -> None:
    src, other = store("src", "from"), MemoryStore("dst")
    other.service = src.service  # one service that shows each account buckets of its own
    lab = Lab(tmp_path, src, other)
    lab.change(target=Place("dst", "from", b""))
    other.put("from", b"a", b"an older copy")
    data = lab.put(b"a", 100)
    assert await lab.sync() == {Outcome.VERIFIED: 1}
    assert other.peek("from", b"a").data == data  # type: ignore[union-attr]
    assert await lab.proofs() == {("put", "etag"): 1}

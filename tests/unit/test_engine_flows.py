"""Whole flows in memory: what arrives, what is kept, and what the next run does."""

from __future__ import annotations

import pytest

from s3flow.errors import AccessDenied, FlowChanged
from s3flow.events import Recorded, ScanFinished
from s3flow.model import Filters, Limits, Outcome, Place
from s3flow.policies import Overwrite, RestorePolicy, TagPolicy
from s3flow.stores.memory import TOKEN_HEADER, MemoryStore
from tests.faults import Faulty, LostAnswer, Recording
from tests.unit.flows_kit import BOUNDARIES, lab
from tests.unit.lab import PARTS, Lab, left_tasks, store

__all__ = ["lab"]  # a fixture


# --- the first run --------------------------------------------------------------------------------


async def test_an_empty_bucket_is_a_finished_flow(lab: Lab) -> None:
    assert await lab.sync() == {}
    assert [event.listed for event in lab.of(ScanFinished)] == [0]
    assert await left_tasks() == []


@pytest.mark.parametrize("with_checksums", [False, True])
@pytest.mark.parametrize("part_size", [None, 700])
async def test_every_size_around_the_boundaries_arrives(
    lab: Lab, part_size: int | None, with_checksums: bool
) -> None:
    lab.change(**PARTS)
    lab.source = store("src", "from", with_checksums=with_checksums)
    lab.target = store("dst", "to", with_checksums=with_checksums)
    for size in BOUNDARIES:
        lab.put(b"%d" % size, size, part_size=part_size if size else None)
    assert await lab.sync() == {Outcome.VERIFIED: len(BOUNDARIES)}
    assert lab.differences() == []
    assert lab.uploads() == []
    assert "size" not in {proof for _, proof in await lab.proofs()}
    assert await left_tasks() == []


@pytest.mark.parametrize("part_size", [700, 1000])
async def test_parts_of_the_source_are_repeated_and_so_is_its_etag(
    lab: Lab, part_size: int
) -> None:
    for size in (1, 699, 700, 701, 5000):
        lab.put(b"%d" % size, size, part_size=part_size)
    await lab.sync()
    assert await lab.proofs() == {("multipart", "etag"): 5}


async def test_strange_keys_arrive_as_they_are(lab: Lab) -> None:
    keys = [b"a//b", b"./a", b"a/", b"%25", b"\xff\xfe", "\u00e9".encode(), "e\u0301".encode()]
    keys += [b" ", b"\n", b"k" * 1024]
    for key in keys:
        lab.put(key, 10)
    assert await lab.sync() == {Outcome.VERIFIED: len(keys)}
    assert lab.dst.keys("to") == sorted(keys)


async def test_prefixes_and_rewrites_give_the_key(lab: Lab) -> None:
    lab.change(
        source=Place("src", "from", b"in/"),
        target=Place("dst", "to", b"out/"),
        rewrite=(("old/", "new/"),),
    )
    for key in (b"in/old/a", b"in/b", b"elsewhere"):
        lab.put(key, 3)
    await lab.sync()
    assert lab.dst.keys("to") == [b"out/b", b"out/new/a"]


async def test_what_an_object_carries_arrives_with_it(lab: Lab) -> None:
    lab.change(**PARTS)
    headers = {"content-type": "text/x", "cache-control": "no-cache", "x-amz-meta-a": "b"}
    for key, size in ((b"put", 10), (b"parts", 5000)):
        lab.put(key, size, headers=headers, tags={"t": "1"}, storage_class="STANDARD_IA")
    await lab.sync()
    for key in (b"put", b"parts"):
        there = lab.dst.peek("to", key)
        assert there is not None
        kept = {k: v for k, v in there.headers.items() if k != "x-amz-meta-s3flow-transfer"}
        assert (kept, there.tags, there.storage_class) == (headers, {"t": "1"}, "STANDARD_IA")


async def test_a_mapped_storage_class_is_the_one_that_arrives(lab: Lab) -> None:
    lab.change(storage_class_map={"STANDARD_IA": "GLACIER_IR"})
    lab.put(b"a", 1, storage_class="STANDARD_IA")
    await lab.sync()
    there = lab.dst.peek("to", b"a")
    assert there is not None
    assert there.storage_class == "GLACIER_IR"


async def test_a_target_that_can_carry_little_says_what_it_dropped(lab: Lab) -> None:
    limits = Limits(carries_headers=False, carries_tags=False, carries_storage_class=False)
    lab.target = store("dst", "to", limits=limits)
    lab.put(
        b"a", 1, headers={"content-type": "x", "x-amz-meta-a": "b"}, tags={"t": "1"},
        storage_class="STANDARD_IA",
    )  # fmt: skip
    assert await lab.sync() == {Outcome.VERIFIED: 1}
    [change] = [change for event in lab.of(Recorded) for change in event.changes]
    assert change.dropped == ("content-type", "metadata", "tags", "storage-class")


class TagsDenied(Faulty):
    """Tags may not be read, and HEAD and GET do not count them."""

    async def around(self, call, go):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201, RUF100
        if call.method == "get_object_tagging":
            raise AccessDenied("s3:GetObjectTagging")
        answer = await go()
        if call.method in {"get_object", "head_object"} and answer is not None:
            getattr(answer, "info", answer).tag_count = 0
        return answer


@pytest.mark.parametrize(
    ("policy", "outcome"),
    [
        (TagPolicy.REQUIRE, Outcome.FAILED),
        (TagPolicy.BEST_EFFORT, Outcome.VERIFIED),
        (TagPolicy.DROP, Outcome.VERIFIED),
    ],
)
@pytest.mark.parametrize("size", [10, 5000])
async def test_tags_that_may_not_be_read(
    lab: Lab, policy: TagPolicy, outcome: Outcome, size: int
) -> None:
    lab.change(**PARTS, tags=policy)
    lab.source = TagsDenied(lab.src)
    lab.put(b"a", size, tags={"t": "1"})
    assert await lab.sync() == {outcome: 1}
    assert (lab.copy_of(b"a") is None) == (outcome is Outcome.FAILED)
    assert set((await lab.failures()).values()) <= {"tags_unreadable"}
    assert lab.uploads() == []


@pytest.mark.parametrize("size", [10, 5000])
async def test_an_archived_object_fails_with_a_reason_and_no_other(lab: Lab, size: int) -> None:
    lab.change(restore=RestorePolicy.NEVER)
    lab.change(**PARTS)
    lab.put(b"cold", size, storage_class="GLACIER")
    lab.put(b"warm", size)
    assert await lab.sync() == {Outcome.FAILED: 1, Outcome.VERIFIED: 1}
    assert await lab.failures() == {b"cold": "archived"}
    assert lab.uploads() == []


# --- the next run ---------------------------------------------------------------------------------


async def test_a_second_run_lists_once_and_touches_nothing(lab: Lab) -> None:
    lab.change(**PARTS)
    for size in BOUNDARIES:
        lab.put(b"%d" % size, size)
    await lab.sync()
    lab.source, lab.target = Recording(lab.src), Recording(lab.dst)
    assert await lab.sync() == {Outcome.VERIFIED: len(BOUNDARIES)}
    assert [call.method for call in lab.source.calls] == ["list_page"]
    assert lab.target.calls == []


async def test_a_changed_object_goes_once_and_no_other(lab: Lab) -> None:
    for key in (b"a", b"b", b"c"):
        lab.put(key, 10)
    await lab.sync()
    lab.put(b"b", 11)
    lab.source = Recording(lab.src)
    assert await lab.sync() == {Outcome.VERIFIED: 3}
    assert [call.args[1] for call in lab.source.of("get_object")] == [b"b"]
    assert lab.differences() == []
    await lab.sync()
    assert len(lab.source.of("get_object")) == 1


async def test_what_was_never_taken_and_is_gone_is_skipped(lab: Lab) -> None:
    lab.change(restore=RestorePolicy.NEVER)
    lab.put(b"cold", 1, storage_class="GLACIER")
    assert await lab.sync() == {Outcome.FAILED: 1}
    await lab.src.delete_object("from", b"cold", etag="")
    assert await lab.sync() == {Outcome.SKIPPED: 1}


async def test_a_copy_whose_source_is_gone_stays(lab: Lab) -> None:
    lab.put(b"a", 1)
    await lab.sync()
    await lab.src.delete_object("from", b"a", etag="")
    assert await lab.sync() == {Outcome.VERIFIED: 1}
    assert lab.copy_of(b"a") is not None


async def test_filters_that_change_take_what_they_left_out(lab: Lab) -> None:
    lab.change(filters=Filters(exclude=("a*",)))
    for key in (b"a1", b"b1"):
        lab.put(key, 1)
    assert await lab.sync() == {Outcome.SKIPPED: 1, Outcome.VERIFIED: 1}
    lab.change(filters=Filters())
    assert await lab.sync() == {Outcome.VERIFIED: 2}
    assert lab.differences() == []


async def test_another_flow_under_the_same_name_is_refused(lab: Lab) -> None:
    await lab.sync()
    lab.change(target=Place("dst", "to", b"elsewhere/"))
    with pytest.raises(FlowChanged):
        await lab.sync()
    assert await left_tasks() == []


@pytest.mark.parametrize("page_size", [1, 2, 1000])
async def test_a_lost_state_costs_a_listing_and_no_transfer(lab: Lab, page_size: int) -> None:
    lab.change(**PARTS)
    lab.source = MemoryStore("src", page_size=page_size)
    for size in BOUNDARIES:
        lab.put(b"%d" % size, size)
        lab.put(b"parts-%d" % size, size, part_size=700 if size else None)
    await lab.sync()
    lab.forget()
    lab.source, lab.target = Recording(lab.src), Recording(lab.dst)
    assert await lab.sync() == {Outcome.VERIFIED: 2 * len(BOUNDARIES)}
    assert lab.source.of("get_object") == []
    assert {method for method, _ in await lab.proofs()} == {"adopted"}
    assert "size" not in {proof for _, proof in await lab.proofs()}
    written = {"put_object", "upload_part", "create_multipart_upload"}
    assert written.isdisjoint(call.method for call in lab.target.calls)


@pytest.mark.parametrize("size", [10, 5000])
async def test_another_object_of_the_same_size_is_not_adopted(lab: Lab, size: int) -> None:
    lab.change(**PARTS)
    lab.put(b"a", size)
    lab.dst.put("to", b"a", b"?" * size, part_size=1000)
    assert await lab.sync() == {Outcome.VERIFIED: 1}
    assert lab.differences() == []
    assert {method for method, _ in await lab.proofs()} <= {"put", "multipart"}


# --- what is at the target ------------------------------------------------------------------------


async def test_never_overwrite_keeps_what_is_there(lab: Lab) -> None:
    lab.change(overwrite=Overwrite.NEVER)
    lab.put(b"a", 10)
    lab.put(b"b", 10)
    lab.dst.put("to", b"a", b"older")
    for _ in range(2):
        assert await lab.sync() == {Outcome.SKIPPED: 1, Outcome.VERIFIED: 1}
        assert lab.copy_of(b"a") == b"older"
    [skipped] = [total for total in await lab.totals() if total.reason]
    assert skipped.reason == "target_exists"


async def test_always_overwrite_sends_everything_with_every_scan(lab: Lab) -> None:
    lab.change(overwrite=Overwrite.ALWAYS)
    lab.put(b"a", 10)
    await lab.sync()
    lab.dst.put("to", b"a", b"meddled")
    assert await lab.sync() == {Outcome.VERIFIED: 1}
    assert lab.differences() == []


async def test_overwrite_changed_replaces_what_is_there(lab: Lab) -> None:
    lab.dst.put("to", b"a", b"older")
    lab.put(b"a", 10)
    assert await lab.sync() == {Outcome.VERIFIED: 1}
    assert lab.differences() == []


@pytest.mark.parametrize("size", [10, 5000])
async def test_never_overwrite_does_not_refuse_its_own_work_after_a_lost_answer(
    lab: Lab, size: int
) -> None:
    lab.change(**PARTS, overwrite=Overwrite.NEVER)
    lab.put(b"a", size)
    method = "put_object" if size == 10 else "complete_multipart_upload"
    lab.target = LostAnswer(lab.dst, method)
    await lab.sync()
    assert lab.differences() == []


async def test_what_another_flow_wrote_on_its_copy_does_not_travel_on(lab: Lab) -> None:
    """By it a flow knows a copy as its own, and would take this one for that."""
    lab.put(b"a", 100, headers={TOKEN_HEADER: "of another", "x-amz-meta-a": "b"})
    assert await lab.sync() == {Outcome.VERIFIED: 1}
    assert lab.dst.peek("to", b"a").headers == {"x-amz-meta-a": "b"}  # type: ignore[union-attr]

"""Every kind of object arrives whole: bytes, headers, metadata, tags; each with its proof."""

from __future__ import annotations

import stat

from tests.demo import compare, objects
from tests.e2e.conftest import MIB, Stage
from tests.e2e.content import KINDS, PART, uploads_left
from tests.e2e.gaps import lacks, need
from tests.e2e.program import adds_up

SMALL_PARTS = {"multipart_threshold": PART - 1, "part_size": PART}


def put_kinds(stage: Stage) -> int:
    for sample in KINDS:
        objects.put(stage.ours, stage.source, sample)
    return len(KINDS)


def odd_keys(stage: Stage) -> list[str]:
    """Give the odd keys that this store takes."""
    return [key for key in objects.ODD_KEYS if not lacks(stage.server, f"key {key.rstrip('z')}")]


def test_objects_of_every_kind_arrive_in_another_account(stage: Stage) -> None:
    count = put_kinds(stage)
    program = stage.program({"target": f"theirs:{stage.target}/", **SMALL_PARTS})
    program.run("sync")
    found = compare.with_bucket(stage.ours, stage.source, stage.theirs, stage.target)
    assert found.differences == []
    assert found.objects == count
    flow = program.flow()
    assert flow["objects"]["verified"] == flow["objects"]["listed"] == count
    assert sum(flow["proofs"].values()) == count
    assert set(flow["proofs"]) <= {"checksum", "etag", "md5"}
    assert flow["methods"]["multipart"] >= 4
    assert uploads_left(stage.theirs, stage.target) == []


def test_objects_of_every_kind_arrive_on_disk(stage: Stage) -> None:
    count = put_kinds(stage)
    program = stage.program({"target": "nas:copy/", **SMALL_PARTS})
    program.run("sync")
    found = compare.with_folder(stage.ours, stage.source, stage.nas / "copy", without="-")
    assert found.differences == []
    assert found.objects == count
    flow = program.flow()
    assert flow["objects"]["verified"] == count
    assert set(flow["proofs"]) <= {"checksum", "md5"}
    # A file system carries none of these, and that is told.
    assert {"content-type", "metadata", "tags"} <= set(flow["dropped"])
    for listed in stage.ours.list_objects_v2(Bucket=stage.source)["Contents"]:
        about = (stage.nas / "copy" / listed["Key"]).stat()
        assert int(about.st_mtime) == int(listed["LastModified"].timestamp())
        assert stat.S_ISREG(about.st_mode)


def test_odd_keys_arrive_byte_for_byte(stage: Stage) -> None:
    for key in odd_keys(stage):
        objects.put(stage.ours, stage.source, objects.Sample(key, 0 if key.endswith("/") else 99))
    program = stage.program({})
    program.run("sync")
    found = compare.with_bucket(stage.ours, stage.source, stage.theirs, stage.target)
    assert found.differences == []
    assert found.objects == len(odd_keys(stage))


def test_odd_keys_arrive_on_disk_or_are_refused_by_rule(stage: Stage) -> None:
    keys = odd_keys(stage)
    for key in keys:
        objects.put(stage.ours, stage.source, objects.Sample(key, 0 if key.endswith("/") else 99))
    refused = [key for key in keys if key.startswith(objects.ONLY_IN_STORES)]
    program = stage.program({"target": "nas:copy/"})
    program.run("sync", code=1 if refused else 0)
    found = compare.with_folder(
        stage.ours, stage.source, stage.nas / "copy", without=objects.ONLY_IN_STORES
    )
    assert found.differences == []
    flow = program.flow()
    assert adds_up(flow)
    assert flow["objects"]["failed"] == len(refused)
    assert set(flow["reasons"]) <= {"name_refused", "name_too_long"}
    told = program.run("failures").out.splitlines()
    assert len(told) == len(refused)


def test_metadata_that_is_not_ascii_stays_as_it_is(stage: Stage) -> None:
    need(stage.server, "metadata-not-ascii")
    # S3 answers with RFC 2047 for what was put as UTF-8; a copy must not decode or encode it again.
    encoded = "=?UTF-8?B?Z3LDvMOfZSDwn5qa?="
    stage.put("note", Metadata={"note": encoded, "plain": "a%20b"})
    stage.program({}).run("sync")
    there = stage.theirs.get_object(Bucket=stage.target, Key="note")
    here = stage.ours.get_object(Bucket=stage.source, Key="note")
    assert there["Metadata"] == here["Metadata"] == {"note": encoded, "plain": "a%20b"}


def test_the_source_part_boundaries_are_kept_and_with_them_the_etag(stage: Stage) -> None:
    need(stage.server, "part-numbers")
    objects.put(stage.ours, stage.source, objects.Sample("large", 3 * objects.PART - 7))
    stage.program({"part_size": 5 * MIB, "multipart_threshold": MIB}).run("sync")
    etags = [
        client.head_object(Bucket=bucket, Key="large")["ETag"]
        for client, bucket in ((stage.ours, stage.source), (stage.theirs, stage.target))
    ]
    assert etags[0].endswith('-3"')
    assert etags[0] == etags[1]


def test_storage_classes_are_kept_and_mapped(stage: Stage) -> None:
    need(stage.server, "storage-classes")
    stage.put("kept", StorageClass="STANDARD_IA")
    stage.put("mapped", StorageClass="ONEZONE_IA")
    stage.put("plain")
    program = stage.program({"storage_class_map": {"ONEZONE_IA": "INTELLIGENT_TIERING"}})
    program.run("sync")
    listed = stage.theirs.list_objects_v2(Bucket=stage.target)["Contents"]
    assert {entry["Key"]: entry["StorageClass"] for entry in listed} == {
        "kept": "STANDARD_IA",
        "mapped": "INTELLIGENT_TIERING",
        "plain": "STANDARD",
    }

"""Unfinished uploads on disk: the journal survives crashes, and says nothing that is not so."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3flow.errors import BadAnswer, ConnectionLost, NoSuchUpload, TargetFull
from s3flow.model import Attributes, Part
from s3flow.stores.local import LocalStore, journal
from s3flow.stores.local.journal import Header, Record
from tests.contract.kit import ATTRIBUTES, MODIFIED, BreakingBody, body_of, pattern

HEADER = Header("bucket", b"a key\n\xff%25", 1_000, MODIFIED, "token", 5)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[LocalStore]:
    opened = LocalStore("disk", tmp_path)
    yield opened
    await opened.close()


async def begin(store: LocalStore, size: int, key: bytes = b"key") -> str:
    """Begin an upload."""
    return await store.create_multipart_upload("", key, ATTRIBUTES, size)


async def send(store: LocalStore, upload_id: str, number: int, offset: int, data: bytes) -> Part:
    """Send a part."""
    return await store.upload_part("", b"key", upload_id, number, offset, body_of(data))


# --- the journal ---------------------------------------------------------------------------------


@given(key=st.binary(max_size=60), token=st.text(max_size=10))
def test_a_header_is_read_as_it_was_written(key: bytes, token: str) -> None:
    header = Header("bucket", key, 7, MODIFIED, token, 5)
    read = journal.parse(journal.header_line(header))
    assert read is not None
    assert read.header == header


@given(
    lines=st.lists(st.tuples(st.integers(1, 5), st.integers(0, 900), st.integers(-1, 100))),
    cut=st.integers(0, 2_000),
    after=st.booleans(),
)
def test_a_journal_cut_anywhere_says_nothing_that_was_not_written(
    lines: list[tuple[int, int, int]], cut: int, after: bool
) -> None:
    text = journal.header_line(HEADER)
    truths: list[dict[int, Record]] = [{}]
    for number, offset, size in lines:
        truth = dict(truths[-1])
        if size < 0:
            text += journal.void_line(number)
            truth.pop(number, None)
        else:
            text += journal.part_line(number, offset, size)
            truth[number] = Record(offset, size)
        truths.append(truth)
    whole = journal.parse(text)
    assert whole is not None
    assert whole.parts == truths[-1]
    # A crash cuts the last line short; the next process appends to what is there.
    kept = text[: max(cut % len(text), len(journal.header_line(HEADER)))]
    torn = journal.parse(kept + journal.part_line(9, 900, 100) if after else kept)
    assert torn is not None
    if after:
        assert torn.parts.pop(9) == Record(900, 100)
    assert torn.parts in truths


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"\n",
        b'\n{"number":1,"offset":0,"size":5}\n',
        b"\0" * 100,
        b"[1, 2]\n",
        b'{"bucket":1}\n',
        journal.header_line(HEADER)[:30],
    ],
)
def test_without_a_whole_header_there_is_no_upload(text: bytes) -> None:
    assert journal.parse(text) is None


def test_zeros_that_a_power_loss_left_count_for_nothing() -> None:
    text = journal.header_line(HEADER) + journal.part_line(1, 0, 5) + b"\0" * 512
    read = journal.parse(text + journal.part_line(2, 5, 5))
    assert read is not None
    assert read.parts == {1: Record(0, 5), 2: Record(5, 5)}


# --- the files -----------------------------------------------------------------------------------


async def test_an_upload_s_files_are_beside_the_object_to_be(
    store: LocalStore, tmp_path: Path
) -> None:
    upload_id = await begin(store, 10_000, b"d/e/key")
    names = {f".s3flow-{upload_id}", f".s3flow-{upload_id}.parts"}
    assert {p.name for p in (tmp_path / "d/e").iterdir()} == names
    assert (tmp_path / f"d/e/.s3flow-{upload_id}").stat().st_size == 10_000
    await store.abort_multipart_upload("", b"d/e/key", upload_id)
    assert list((tmp_path / "d/e").iterdir()) == []


async def test_a_part_counts_once_data_and_then_journal_are_durable(
    store: LocalStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload_id = await begin(store, 4)
    log: list[str] = []
    fdatasync = os.fdatasync

    def record(fd: int) -> None:
        name = Path(f"/proc/self/fd/{fd}").readlink().name
        log.append("journal" if name.endswith(".parts") else "data")
        fdatasync(fd)

    monkeypatch.setattr(os, "fdatasync", record)
    await send(store, upload_id, 1, 0, b"data")
    assert log == ["data", "journal"]


async def test_a_part_that_could_not_be_made_durable_does_not_count(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload_id = await begin(store, 4)

    def fail(fd: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fdatasync", fail)
    with pytest.raises(Exception, match="EIO"):
        await send(store, upload_id, 1, 0, b"data")
    monkeypatch.undo()
    assert await store.list_parts("", b"key", upload_id) == []


async def test_half_replaced_bytes_never_count_as_a_part(store: LocalStore, tmp_path: Path) -> None:
    data = pattern(90_000)
    upload_id = await begin(store, 90_000)
    part = await send(store, upload_id, 1, 0, data)
    # Another process, which knows of the part from the journal only.
    again = LocalStore("disk", tmp_path)
    with pytest.raises(ConnectionLost):
        await again.upload_part(
            "", b"key", upload_id, 1, 0, BreakingBody(data[::-1][:80_000], 90_000, ConnectionLost())
        )
    assert await again.list_parts("", b"key", upload_id) == []
    with pytest.raises(BadAnswer, match="part 1 of 90000 bytes at 0 is not on disk"):
        await again.complete_multipart_upload("", b"key", upload_id, [part])
    await again.close()


async def test_a_part_never_writes_outside_of_its_place(store: LocalStore) -> None:
    upload_id = await begin(store, 20)
    await send(store, upload_id, 2, 10, b"second ten")
    for offset, data in ((11, b"0123456789"), (-1, b"0"), (20, b"0")):
        with pytest.raises(BadAnswer, match="outside of the object's 20"):
            await send(store, upload_id, 3, offset, data)
    with pytest.raises(BadAnswer):
        await store.upload_part("", b"key", upload_id, 1, 0, BreakingBody(b"x" * 15, 10))
    parts = [await send(store, upload_id, 1, 0, b"the first "), Part(2, 10, "")]
    stored = await store.complete_multipart_upload("", b"key", upload_id, parts)
    await store.settle([stored])
    assert (store._directories.root_path / "key").read_bytes() == b"the first second ten"


@pytest.mark.parametrize(
    "parts",
    [
        [],
        [Part(1, 10, "")],
        [Part(2, 10, "")],
        [Part(2, 10, ""), Part(1, 10, "")],
        [Part(1, 10, ""), Part(1, 10, "")],
        [Part(1, 10, ""), Part(2, 9, "")],
        [Part(1, 10, ""), Part(2, 10, ""), Part(3, 0, "")],
    ],
)
async def test_only_the_parts_that_make_the_whole_complete_it(
    store: LocalStore, parts: list[Part]
) -> None:
    upload_id = await begin(store, 20)
    for number in (1, 2):
        await send(store, upload_id, number, (number - 1) * 10, b"0123456789")
    with pytest.raises(BadAnswer, match="sent again"):
        await store.complete_multipart_upload("", b"key", upload_id, parts)
    whole = [Part(1, 10, ""), Part(2, 10, "")]
    for _ in range(2):  # a lost answer: completing again gives the same
        stored = await store.complete_multipart_upload("", b"key", upload_id, whole)
    assert await store.settle([stored]) == [None]


async def test_an_upload_belongs_to_its_key(store: LocalStore) -> None:
    upload_id = await begin(store, 4)
    with pytest.raises(NoSuchUpload):
        await store.list_parts("", b"other", upload_id)
    with pytest.raises(NoSuchUpload):
        await store.list_parts("bucket", b"key", upload_id)


@pytest.mark.parametrize("lost", [".parts", ""])
async def test_an_upload_that_lost_a_file_is_no_upload(
    store: LocalStore, tmp_path: Path, lost: str
) -> None:
    upload_id = await begin(store, 4)
    part = await send(store, upload_id, 1, 0, b"data")
    (tmp_path / f".s3flow-{upload_id}{lost}").unlink()
    with pytest.raises(NoSuchUpload):
        await store.list_parts("", b"key", upload_id)
    with pytest.raises(NoSuchUpload):
        await store.complete_multipart_upload("", b"key", upload_id, [part])
    with pytest.raises(NoSuchUpload):
        await send(store, upload_id, 1, 0, b"data")
    await store.abort_multipart_upload("", b"key", upload_id)
    assert list(tmp_path.iterdir()) == []


async def test_a_finished_file_has_the_object_s_time_and_tells_whose_upload_it_was(
    store: LocalStore, tmp_path: Path
) -> None:
    attributes = Attributes({}, {}, "STANDARD", MODIFIED, token="of-this-version")
    upload_id = await store.create_multipart_upload("", b"key", attributes, 4)
    part = await send(store, upload_id, 1, 0, b"data")
    stored = await store.complete_multipart_upload("", b"key", upload_id, [part])
    await store.settle([stored])
    assert (tmp_path / "key").stat().st_mtime_ns == MODIFIED * 1_000_000
    try:
        os.setxattr(tmp_path, "user.probe", b"")
    except OSError:
        return  # a file system without attributes: the object is sent again after a crash
    head = await store.head_object("", b"key")
    assert head is not None
    assert head.headers == {"x-amz-meta-s3flow-transfer": "of-this-version"}


async def test_uploads_of_two_buckets_are_told_apart(store: LocalStore) -> None:
    ids = {
        bucket: await store.create_multipart_upload(bucket, b"key", ATTRIBUTES, 4)
        for bucket in ("one", "two")
    }
    for bucket, upload_id in ids.items():
        found = await store.list_multipart_uploads(bucket, b"")
        assert [(upload.key, upload.upload_id) for upload in found] == [(b"key", upload_id)]
    assert await store.list_multipart_uploads("", b"one/") == []
    assert await store.list_multipart_uploads("three", b"") == []
    for prefix in (b"../", b"/", b"a//", b".s3flow-", b"x" * 300, b"key/"):
        assert await store.list_multipart_uploads("one", prefix) == []


async def test_an_upload_that_cannot_begin_leaves_no_files(
    store: LocalStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(TargetFull):
        await begin(store, 4)
    assert list(tmp_path.iterdir()) == []

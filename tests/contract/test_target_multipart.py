"""What every target promises of uploads in parts."""

from __future__ import annotations

import asyncio

import pytest

from s3flow.errors import BadAnswer, ConnectionLost, NoSuchUpload, Refused, Truncated
from s3flow.model import Attributes, Part
from tests.contract.kit import MODIFIED, Bench, BreakingBody, body_of, pattern
from tests.contract.target_kit import UNKNOWN_UPLOAD, begin, list_parts


async def test_parts_in_any_order_make_the_object(target: Bench) -> None:
    size = target.part_size
    pieces = [pattern(size, 1), pattern(size, 2), pattern(size, 3), b"tail"]
    upload_id = await begin(target, b"d/key", 3 * size + 4)
    parts = [
        await target.send(b"d/key", upload_id, number, (number - 1) * size, pieces[number - 1])
        for number in (3, 1, 4, 2)
    ]
    assert await target.read(b"d/key") is None
    held = await list_parts(target, b"d/key", upload_id)
    assert [(part.number, part.size) for part in held] == [(1, size), (2, size), (3, size), (4, 4)]
    assert sorted(part[:3] for part in parts) == [part[:3] for part in held]
    stored = await target.store.complete_multipart_upload(
        target.bucket, b"d/key", upload_id, sorted(parts)
    )
    await target.settle(stored)
    assert await target.read(b"d/key") == b"".join(pieces)
    assert (await target.store.head_object(target.bucket, b"d/key")).size == 3 * size + 4
    assert await target.store.list_multipart_uploads(target.bucket, b"") == []


async def test_a_completed_upload_shows_whose_it_is(target: Bench) -> None:
    attributes = Attributes({}, {}, "STANDARD", MODIFIED, token="of-this-version")
    await target.put_parts(b"key", [b"data"], attributes)
    head = await target.store.head_object(target.bucket, b"key")
    shown = head.headers.get("x-amz-meta-s3flow-transfer")
    assert shown == "of-this-version" or (shown is None and target.store.limits.paths)
    await target.put(b"key", b"a plain object")
    head = await target.store.head_object(target.bucket, b"key")
    assert "x-amz-meta-s3flow-transfer" not in head.headers


async def test_parts_sent_side_by_side_do_not_mix(target: Bench) -> None:
    size = max(target.part_size, 70_000)
    pieces = [pattern(size, number) for number in range(6)]
    upload_id = await begin(target, b"key", 6 * size)
    parts = await asyncio.gather(
        *(
            target.send(b"key", upload_id, index + 1, index * size, piece)
            for index, piece in enumerate(pieces)
        )
    )
    stored = await target.store.complete_multipart_upload(target.bucket, b"key", upload_id, parts)
    await target.settle(stored)
    assert await target.read(b"key") == b"".join(pieces)


async def test_an_upload_goes_on_in_another_process(target: Bench) -> None:
    size = target.part_size
    upload_id = await begin(target, b"d/key", 2 * size)
    await target.send(b"d/key", upload_id, 1, 0, pattern(size, 1))
    again = await target.reopen()
    (found,) = await again.list_multipart_uploads(target.bucket, b"d/")
    assert (found.key, found.upload_id) == (b"d/key", upload_id)
    assert found.initiated > MODIFIED
    (held,) = await again.list_parts(target.bucket, b"d/key", upload_id)
    assert (held.number, held.size) == (1, size)
    last = await again.upload_part(
        target.bucket, b"d/key", upload_id, 2, size, body_of(pattern(size, 2))
    )
    stored = await again.complete_multipart_upload(target.bucket, b"d/key", upload_id, [held, last])
    assert await again.settle([stored]) == [None]
    assert await target.read(b"d/key") == pattern(size, 1) + pattern(size, 2)


async def test_a_part_sent_again_replaces_the_first(target: Bench) -> None:
    upload_id = await begin(target, b"key", 9)
    await target.send(b"key", upload_id, 1, 0, b"first try")
    part = await target.send(b"key", upload_id, 1, 0, b"secondtry")
    assert [each[:3] for each in await list_parts(target, b"key", upload_id)] == [part[:3]]
    stored = await target.store.complete_multipart_upload(target.bucket, b"key", upload_id, [part])
    await target.settle(stored)
    assert await target.read(b"key") == b"secondtry"


async def test_a_part_that_breaks_is_never_half_there(target: Bench) -> None:
    size = 100_000
    upload_id = await begin(target, b"key", size)
    for former in (None, pattern(size, 1)):
        if former is not None:
            await target.send(b"key", upload_id, 1, 0, former)
        body = BreakingBody(pattern(90_000, 2), size, ConnectionLost("the source went away"))
        with pytest.raises(ConnectionLost):
            await target.store.upload_part(target.bucket, b"key", upload_id, 1, 0, body)
        held = await list_parts(target, b"key", upload_id)
        if former is None:
            assert held == []
        elif held:
            stored = await target.store.complete_multipart_upload(
                target.bucket, b"key", upload_id, held
            )
            await target.settle(stored)
            assert await target.read(b"key") == former


@pytest.mark.parametrize(("arrive", "error"), [(99, Truncated), (101, BadAnswer)])
async def test_a_part_has_exactly_its_bytes(
    target: Bench, arrive: int, error: type[Exception]
) -> None:
    upload_id = await begin(target, b"key", 300)
    with pytest.raises(error):
        await target.store.upload_part(
            target.bucket, b"key", upload_id, 1, 0, BreakingBody(pattern(arrive), 100)
        )
    assert await list_parts(target, b"key", upload_id) == []


async def test_uploads_are_listed_by_prefix(target: Bench) -> None:
    keys = [b"a", b"b/1", b"b/2", b"bb", b"c//x" if not target.store.limits.paths else b"c/x"]
    ids = {key: await begin(target, key, 10) for key in keys}
    for prefix in (b"", b"b", b"b/", b"b/2", b"bb", b"z", b"no/such/dir/"):
        found = await target.store.list_multipart_uploads(target.bucket, prefix)
        expected = {key: ids[key] for key in keys if key.startswith(prefix)}
        assert {upload.key: upload.upload_id for upload in found} == expected


async def test_two_uploads_of_one_key_do_not_touch_each_other(target: Bench) -> None:
    first, second = await begin(target, b"key", 5), await begin(target, b"key", 6)
    part = await target.send(b"key", first, 1, 0, b"first")
    await target.send(b"key", second, 1, 0, b"second")
    await target.store.abort_multipart_upload(target.bucket, b"key", second)
    stored = await target.store.complete_multipart_upload(target.bucket, b"key", first, [part])
    await target.settle(stored)
    assert await target.read(b"key") == b"first"


async def test_an_unknown_upload_is_named_as_such(target: Bench) -> None:
    await target.put(b"key", b"object")
    store, bucket = target.store, target.bucket
    for upload_id in (UNKNOWN_UPLOAD, "../../../etc/passwd"):
        with pytest.raises(NoSuchUpload):
            await store.list_parts(bucket, b"key", upload_id)
        with pytest.raises(NoSuchUpload):
            await store.upload_part(bucket, b"key", upload_id, 1, 0, body_of(b"data"))
        with pytest.raises(NoSuchUpload):
            await store.complete_multipart_upload(bucket, b"key", upload_id, [Part(1, 4, "0" * 32)])
        await store.abort_multipart_upload(bucket, b"key", upload_id)
    assert await target.read(b"key") == b"object"


async def test_an_aborted_upload_is_gone_and_its_key_untouched(target: Bench) -> None:
    await target.put(b"key", b"former")
    upload_id = await begin(target, b"key", 4)
    part = await target.send(b"key", upload_id, 1, 0, b"data")
    await target.store.abort_multipart_upload(target.bucket, b"key", upload_id)
    await target.store.abort_multipart_upload(target.bucket, b"key", upload_id)
    assert await target.store.list_multipart_uploads(target.bucket, b"") == []
    with pytest.raises(NoSuchUpload):
        await target.store.complete_multipart_upload(target.bucket, b"key", upload_id, [part])
    assert await target.read(b"key") == b"former"


async def test_a_completed_upload_is_gone(target: Bench) -> None:
    upload_id = await begin(target, b"key", 4)
    part = await target.send(b"key", upload_id, 1, 0, b"data")
    stored = await target.store.complete_multipart_upload(target.bucket, b"key", upload_id, [part])
    await target.settle(stored)
    with pytest.raises(NoSuchUpload):
        await list_parts(target, b"key", upload_id)


async def test_a_part_that_is_not_there_completes_nothing(target: Bench) -> None:
    size = target.part_size
    upload_id = await begin(target, b"key", 2 * size)
    part = await target.send(b"key", upload_id, 1, 0, pattern(size))
    with pytest.raises((BadAnswer, Refused, NoSuchUpload)):
        await target.store.complete_multipart_upload(
            target.bucket, b"key", upload_id, [part, Part(2, size, "0" * 32)]
        )
    assert await target.read(b"key") is None
    last = await target.send(b"key", upload_id, 2, size, pattern(size))
    stored = await target.store.complete_multipart_upload(
        target.bucket, b"key", upload_id, [part, last]
    )
    await target.settle(stored)
    assert await target.read(b"key") == pattern(size) * 2

"""The contract of copies inside a store, over every target that makes them."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from s3flow.errors import (
    NameRefused,
    NoSuchUpload,
    Permanent,
    Refused,
    SourceChanged,
    SourceGone,
)
from s3flow.model import Attributes, Original, Part, Span
from tests.contract.conftest import TARGETS
from tests.contract.kit import AWKWARD_KEYS, MODIFIED, Bench, cancel_after, pattern

ABOUT = Attributes(
    {"content-type": "text/x", "cache-control": "no-store", "x-amz-meta-a": "b c"},
    {"k": "v w"},
    "STANDARD",
    MODIFIED,
)
COPYING = [name for name in TARGETS if not name.startswith("local")]


@pytest.fixture(params=COPYING)
async def inside(request: pytest.FixtureRequest) -> AsyncIterator[Bench]:
    """Give each store that copies by itself."""
    async with TARGETS[request.param](request) as bench:
        yield bench


async def original(bench: Bench, key: bytes, data: bytes) -> Original:
    """Put an object that is to be copied."""
    stored = await bench.put(key, data, ABOUT)
    return Original(bench.bucket, key, stored.etag, len(data))


async def copy(bench: Bench, of: Original, key: bytes, **how: object) -> object:
    """Copy a whole object."""
    given = {"storage_class": "", "with_tags": True, **how}
    return await bench.store.copy_object(of, bench.bucket, key, **given)


@pytest.mark.parametrize("size", [0, 1, 700, 200_000])
async def test_a_copy_has_the_bytes_and_the_etag(inside: Bench, size: int) -> None:
    data = pattern(size)
    of = await original(inside, b"from/key", data)
    stored = await copy(inside, of, b"to/key")
    assert (stored.size, stored.etag, stored.settle) == (size, of.etag, None)  # type: ignore[attr-defined]
    assert await inside.read(b"to/key") == data
    head = await inside.store.head_object(inside.bucket, b"to/key")
    assert (head.size, head.etag) == (size, of.etag)
    assert await inside.read(b"from/key") == data


async def test_headers_metadata_and_tags_come_along(inside: Bench) -> None:
    of = await original(inside, b"from", b"some bytes")
    await copy(inside, of, b"to")
    head = await inside.store.head_object(inside.bucket, b"to")
    assert ABOUT.headers.items() <= dict(head.headers).items()
    assert await inside.store.get_object_tagging(inside.bucket, b"to") == ABOUT.tags


async def test_tags_stay_behind_on_demand(inside: Bench) -> None:
    of = await original(inside, b"from", b"some bytes")
    await copy(inside, of, b"to", with_tags=False)
    assert await inside.store.get_object_tagging(inside.bucket, b"to") == {}
    head = await inside.store.head_object(inside.bucket, b"to")
    assert ABOUT.headers.items() <= dict(head.headers).items()


async def test_the_storage_class_is_the_one_asked_for(inside: Bench) -> None:
    of = await original(inside, b"from", b"some bytes")
    await copy(inside, of, b"cold", storage_class="STANDARD_IA")
    await copy(inside, of, b"warm", storage_class="STANDARD")
    found = await inside.store.find(inside.bucket, [b"cold", b"warm"])
    assert found[b"cold"].storage_class == "STANDARD_IA"
    assert found[b"warm"].storage_class == "STANDARD"


async def test_awkward_keys_are_copied_from_and_to_exactly(inside: Bench) -> None:
    plain = await original(inside, b"no key of theirs", b"x")
    for key in AWKWARD_KEYS:
        try:
            inside.store.refuse(inside.bucket, key)
        except NameRefused:
            with pytest.raises(NameRefused):
                await copy(inside, plain, key)
            continue
        of = await original(inside, key, b"content of " + key)
        await copy(inside, of, b"the-copy")
        assert await inside.read(b"the-copy") == b"content of " + key
        await inside.put(key, b"not this")
        await copy(inside, of._replace(key=b"the-copy"), key)
        assert await inside.read(key) == b"content of " + key


async def test_another_version_is_not_copied(inside: Bench) -> None:
    of = await original(inside, b"from", b"one")
    await inside.put(b"to", b"older")
    await inside.put(b"from", b"two")
    with pytest.raises(SourceChanged):
        await copy(inside, of, b"to")
    assert await inside.read(b"to") == b"older"


async def test_what_is_gone_is_not_copied(inside: Bench) -> None:
    of = Original(inside.bucket, b"nothing", "0" * 32, 3)
    with pytest.raises(SourceGone):
        await copy(inside, of, b"to")
    assert await inside.read(b"to") is None


async def test_a_bucket_that_is_not_there_is_a_permanent_error(inside: Bench) -> None:
    of = Original("no-such-bucket-anywhere", b"key", "0" * 32, 3)
    with pytest.raises(Permanent):
        await copy(inside, of, b"to")


# --- parts ------------------------------------------------------------------------------------


async def copy_part(bench: Bench, of: Original, upload_id: str, number: int, span: Span) -> Part:
    """Copy a span into a part of the upload of the key "to"."""
    part: Part = await bench.store.upload_part_copy(
        of, bench.bucket, b"to", upload_id, number, span
    )
    return part


async def begin(bench: Bench, size: int) -> str:
    upload_id: str = await bench.store.create_multipart_upload(bench.bucket, b"to", ABOUT, size)
    return upload_id


async def test_parts_copied_inside_make_the_object_and_its_etag(inside: Bench) -> None:
    size = inside.part_size
    pieces = [pattern(size, 1), pattern(size, 2), pattern(size // 2, 3)]
    whole = b"".join(pieces)
    put = await inside.put_parts(b"from", pieces, ABOUT)
    of = Original(inside.bucket, b"from", put.etag, len(whole))
    upload_id = await begin(inside, len(whole))
    parts = []
    for number in (3, 1, 2):
        start = (number - 1) * size
        span = Span(start, min(start + size, len(whole)))
        parts.append(await copy_part(inside, of, upload_id, number, span))
        assert parts[-1].size == span.size
    parts.sort()
    held = await inside.store.list_parts(inside.bucket, b"to", upload_id)
    assert [part[:3] for part in held] == [part[:3] for part in parts]
    stored = await inside.store.complete_multipart_upload(inside.bucket, b"to", upload_id, parts)
    assert stored.etag == put.etag
    assert await inside.read(b"to") == whole


async def test_a_part_may_be_a_whole_small_object(inside: Bench) -> None:
    of = await original(inside, b"from", b"small")
    upload_id = await begin(inside, 5)
    part = await copy_part(inside, of, upload_id, 1, Span(0, 5))
    await inside.store.complete_multipart_upload(inside.bucket, b"to", upload_id, [part])
    assert await inside.read(b"to") == b"small"


async def test_a_part_of_another_version_is_not_copied(inside: Bench) -> None:
    of = await original(inside, b"from", pattern(2000, 1))
    upload_id = await begin(inside, 2000)
    await inside.put(b"from", pattern(2000, 2))
    with pytest.raises(SourceChanged):
        await copy_part(inside, of, upload_id, 1, Span(0, 1000))
    assert await inside.store.list_parts(inside.bucket, b"to", upload_id) == []


async def test_a_part_of_what_is_gone_is_not_copied(inside: Bench) -> None:
    upload_id = await begin(inside, 2000)
    of = Original(inside.bucket, b"nothing", "0" * 32, 2000)
    with pytest.raises(SourceGone):
        await copy_part(inside, of, upload_id, 1, Span(0, 1000))


async def test_a_part_for_an_unknown_upload_is_named_as_such(inside: Bench) -> None:
    of = await original(inside, b"from", b"small")
    with pytest.raises((NoSuchUpload, Refused)):
        await copy_part(inside, of, "0123456789abcdef", 1, Span(0, 5))


async def test_a_copy_cancelled_anywhere_leaves_old_or_new_but_nothing_between(
    inside: Bench,
) -> None:
    data = pattern(5000)
    of = await original(inside, b"from", data)
    for steps in range(inside.steps):
        await inside.put(b"to", b"old")
        await cancel_after(steps, copy(inside, of, b"to"))
        assert await inside.read(b"to") in {b"old", data}
    await copy(inside, of, b"to")
    assert await inside.read(b"to") == data


# --- folders ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in TARGETS if name.startswith("local")])
async def test_a_folder_says_that_it_copies_nothing(
    name: str, request: pytest.FixtureRequest
) -> None:
    async with TARGETS[name](request) as bench:
        assert bench.store.service == ""
        of = Original("bucket", b"key", "0" * 32, 1)
        with pytest.raises(Refused):
            await copy(bench, of, b"to")
        with pytest.raises(Refused):
            await copy_part(bench, of, "0123456789abcdef", 1, Span(0, 1))

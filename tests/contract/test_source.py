"""The contract of `ports.Source`, clause by clause, over every source."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib

import pytest

from s3flow.errors import (
    Archived,
    NameRefused,
    NoSuchBucket,
    SourceChanged,
    SourceGone,
)
from s3flow.model import Attributes, Listed, Span
from tests.contract.kit import (
    ATTRIBUTES,
    AWKWARD_KEYS,
    MODIFIED,
    Bench,
    cancel_after,
    pattern,
    read_body,
)


async def list_all(source: Bench, prefix: bytes = b"") -> list[Listed]:
    """Walk all pages."""
    entries: list[Listed] = []
    after = b""
    while True:
        page = await source.store.list_page(source.bucket, prefix, after)
        entries += page.entries
        if page.last:
            return entries
        assert page.entries, "a page that is not the last one must advance"
        after = page.entries[-1].key


async def put_all(source: Bench, keys: list[bytes]) -> None:
    """Put each key with itself as its content."""
    waiting = iter(keys)

    async def lane() -> None:
        for key in waiting:
            await source.put(key, key)

    async with asyncio.TaskGroup() as group:
        for _ in range(16):
            group.create_task(lane())


async def test_the_account_s_buckets_are_listed(source: Bench) -> None:
    assert source.bucket in [bucket.name for bucket in await source.store.list_buckets()]


async def test_a_bucket_that_is_not_there_is_named(source: Bench) -> None:
    with pytest.raises(NoSuchBucket, match="s3flow-no-such-bucket"):
        await source.store.list_page("s3flow-no-such-bucket", b"", b"")


async def test_an_empty_bucket_is_one_last_page(source: Bench) -> None:
    assert await source.store.list_page(source.bucket, b"", b"") == ([], True)


async def test_pages_join_to_all_keys_in_byte_order(source: Bench) -> None:
    keys = [b"k/%05d" % number for number in range(source.page_size + 5)]
    await put_all(source, keys)
    assert [entry.key for entry in await list_all(source)] == keys


async def test_a_listing_that_ends_with_a_full_page_ends(source: Bench) -> None:
    keys = [b"k/%05d" % number for number in range(source.page_size)]
    await put_all(source, keys)
    assert [entry.key for entry in await list_all(source)] == keys


async def test_an_entry_says_size_etag_time_and_class(source: Bench) -> None:
    await source.put(b"key", b"12345")
    head = await source.store.head_object(source.bucket, b"key")
    (entry,) = await list_all(source)
    assert (entry.key, entry.size, entry.storage_class) == (b"key", 5, "STANDARD")
    assert entry.etag == head.etag == hashlib.md5(b"12345").hexdigest()
    assert entry.modified >= MODIFIED
    assert entry.modified // 1000 == head.modified // 1000


@pytest.mark.parametrize(
    ("prefix", "after", "expected"),
    [
        (b"", b"", [b"a", b"a/", b"a/1", b"a/2", b"ab", b"b"]),
        (b"a/", b"", [b"a/", b"a/1", b"a/2"]),
        (b"a/", b"a/", [b"a/1", b"a/2"]),
        (b"a/", b"a/1", [b"a/2"]),
        (b"a/", b"a/10", [b"a/2"]),
        (b"a/", b"a/2", []),
        (b"a/", b"zz", []),
        (b"a/", b"0", [b"a/", b"a/1", b"a/2"]),
        (b"a", b"a/2", [b"ab"]),
        (b"nothing", b"", []),
        (b"", b"b", []),
    ],
)
async def test_keys_start_with_the_prefix_and_come_after(
    source: Bench, prefix: bytes, after: bytes, expected: list[bytes]
) -> None:
    await put_all(source, [b"a", b"a/", b"a/1", b"a/2", b"ab", b"b"])
    page = await source.store.list_page(source.bucket, prefix, after)
    assert [entry.key for entry in page.entries] == expected
    assert page.last


async def test_awkward_keys_are_listed_read_and_headed_exactly(source: Bench) -> None:
    kept = []
    for key in AWKWARD_KEYS:
        try:
            await source.put(key, key)
        except NameRefused:
            continue
        kept.append(key)
    assert b"plain" in kept
    listed = await list_all(source)
    assert [entry.key for entry in listed] == sorted(kept)
    for entry in listed:
        body = await source.store.get_object(source.bucket, entry.key, etag=entry.etag)
        assert await read_body(body) == entry.key
        head = await source.store.head_object(source.bucket, entry.key)
        assert (head.size, head.etag) == (entry.size, entry.etag)
        assert await source.store.delete_object(source.bucket, entry.key, etag=entry.etag)
    assert await list_all(source) == []


@pytest.mark.parametrize("size", [0, 1, 699, 700, 701, 65_536, 300_000])
async def test_a_body_is_the_object_and_ends_with_an_empty_chunk(source: Bench, size: int) -> None:
    data = pattern(size)
    stored = await source.put(b"key", data)
    body = await source.store.get_object(source.bucket, b"key", etag=stored.etag)
    assert (body.size, body.info.size, body.info.etag) == (size, size, stored.etag)
    got = bytearray()
    while chunk := await body.read():
        got += chunk
    assert bytes(got) == data
    assert not await body.read()
    body.close()
    body.close()


async def test_a_span_is_those_bytes_and_no_others(source: Bench) -> None:
    data = pattern(100_000)
    stored = await source.put(b"key", data)
    for span in (Span(0, 1), Span(0, 100_000), Span(1, 99_999), Span(99_999, 100_000)):
        body = await source.store.get_object(source.bucket, b"key", etag=stored.etag, span=span)
        assert body.size == span.size
        assert body.info.etag == stored.etag
        assert await read_body(body) == data[span.start : span.stop]


async def test_a_body_closed_early_harms_no_later_one(source: Bench) -> None:
    data = pattern(300_000)
    stored = await source.put(b"key", data)
    for reads in range(3):
        body = await source.store.get_object(source.bucket, b"key", etag=stored.etag)
        for _ in range(reads):
            await body.read()
        body.close()
    body = await source.store.get_object(source.bucket, b"key", etag=stored.etag)
    assert await read_body(body) == data


async def test_bodies_read_side_by_side_do_not_mix(source: Bench) -> None:
    contents = {b"key-%d" % number: pattern(80_000, number) for number in range(8)}
    etags = {key: (await source.put(key, data)).etag for key, data in contents.items()}

    async def read(key: bytes) -> bytes:
        return await read_body(await source.store.get_object(source.bucket, key, etag=etags[key]))

    assert await asyncio.gather(*map(read, contents)) == list(contents.values())


async def test_another_version_is_never_read(source: Bench) -> None:
    old = await source.put(b"key", b"old version")
    new = await source.put(b"key", b"new version!")
    for span in (None, Span(0, 3)):
        with pytest.raises(SourceChanged):
            await source.store.get_object(source.bucket, b"key", etag=old.etag, span=span)
    body = await source.store.get_object(source.bucket, b"key", etag=new.etag)
    assert await read_body(body) == b"new version!"


async def test_an_object_that_is_gone_is_named(source: Bench) -> None:
    with pytest.raises(SourceGone, match="missing/key"):
        await source.store.get_object(source.bucket, b"missing/key", etag="0" * 32)
    assert await source.store.head_object(source.bucket, b"missing/key") is None


async def test_an_archived_object_says_so_and_can_be_headed(source: Bench) -> None:
    if not source.archives:
        pytest.skip("the server has no archive tiers")
    stored = await source.put(b"key", b"cold", Attributes({}, {}, "GLACIER", MODIFIED))
    with pytest.raises(Archived):
        await source.store.get_object(source.bucket, b"key", etag=stored.etag)
    head = await source.store.head_object(source.bucket, b"key")
    assert (head.size, head.storage_class) == (4, "GLACIER")
    assert [entry.storage_class for entry in await list_all(source)] == ["GLACIER"]


async def test_headers_and_tags_come_back_as_they_were_given(source: Bench) -> None:
    headers = {
        "content-type": "text/x-test; charset=utf-8",
        "cache-control": "max-age=60",
        "content-disposition": 'attachment; filename="a b.txt"',
        "content-language": "de, en",
        "x-amz-meta-colour": "blue + green = 50 %",
    }
    tags = {"team": "a=b+c", "blank": "", "sign": "+ /@:"}
    stored = await source.put(b"key", b"data", Attributes(headers, tags, "STANDARD", MODIFIED))
    head = await source.store.head_object(source.bucket, b"key")
    body = await source.store.get_object(source.bucket, b"key", etag=stored.etag)
    body.close()
    for info in (head, body.info):
        assert headers.items() <= dict(info.headers).items()
    assert await source.store.get_object_tagging(source.bucket, b"key") == tags
    assert body.info.tag_count == len(tags)


async def test_an_object_without_tags_has_none(source: Bench) -> None:
    await source.put(b"key", b"data")
    assert await source.store.get_object_tagging(source.bucket, b"key") == {}


async def test_the_head_of_a_part_says_its_size(source: Bench) -> None:
    if not source.knows_part_sizes:
        pytest.skip("the server does not answer by part number")
    size = source.part_size
    await source.put_parts(b"key", [pattern(size), pattern(size, 1), b"tail"])
    whole = await source.store.head_object(source.bucket, b"key")
    assert (whole.size, whole.etag[-2:]) == (2 * size + 4, "-3")
    sizes = []
    for number in (1, 2, 3):
        head = await source.store.head_object(source.bucket, b"key", part_number=number)
        assert (head.parts_count, head.etag) == (3, whole.etag)
        sizes.append(head.size)
    assert sizes == [size, size, 4]


async def test_delete_takes_that_version_only(source: Bench) -> None:
    if not source.deletes_conditionally:
        pytest.skip("the server ignores If-Match on DELETE")
    old = await source.put(b"key", b"old")
    new = await source.put(b"key", b"new!")
    with pytest.raises(SourceChanged):
        await source.store.delete_object(source.bucket, b"key", etag=old.etag)
    assert await source.read(b"key") == b"new!"
    assert await source.store.delete_object(source.bucket, b"key", etag=new.etag)
    assert await source.read(b"key") is None


async def test_deleting_what_is_gone_is_no_error(source: Bench) -> None:
    await source.put(b"other", b"stays")
    assert await source.store.delete_object(source.bucket, b"key", etag="0" * 32) is False
    assert await source.read(b"other") == b"stays"


async def test_a_cancelled_read_harms_no_later_one(source: Bench) -> None:
    data = pattern(20_000)
    stored = await source.put(b"key", data, ATTRIBUTES)

    async def read() -> bytes:
        body = await source.store.get_object(source.bucket, b"key", etag=stored.etag)
        with contextlib.closing(body):
            return await read_body(body)

    for steps in range(source.steps):
        assert await cancel_after(steps, read()) in (None, data)
    assert await read() == data

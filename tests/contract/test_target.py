"""The contract of `ports.Target`, clause by clause, over every target."""

from __future__ import annotations

import asyncio
import hashlib

import pytest
from awscrt import checksums

from s3flow.errors import BadAnswer, ConnectionLost, Corrupted, NameRefused, NoSuchUpload, Truncated
from s3flow.model import Attributes, Stored
from tests.contract.kit import (
    ATTRIBUTES,
    AWKWARD_KEYS,
    MODIFIED,
    Bench,
    BreakingBody,
    body_of,
    cancel_after,
    pattern,
)
from tests.contract.target_kit import begin, find, list_parts

# --- names ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", AWKWARD_KEYS)
async def test_a_key_is_kept_exactly_or_refused_beforehand(target: Bench, key: bytes) -> None:
    content = b"" if key.endswith(b"/") else b"content of " + key
    try:
        target.store.refuse(target.bucket, key)
    except NameRefused:
        with pytest.raises(NameRefused):
            await target.put(key, content)
        with pytest.raises(NameRefused):
            await target.store.create_multipart_upload(target.bucket, key, ATTRIBUTES, 1)
        assert key not in await find(target, key)
        return
    await target.put(key, content)
    assert await target.read(key) == content
    assert list(await find(target, key)) == [key]
    head = await target.store.head_object(target.bucket, key)
    assert head.size == len(content)


async def test_keys_that_look_alike_stay_apart(target: Bench) -> None:
    alike = ["e\u0301".encode(), "\u00e9".encode(), b"%C3%A9", b"a+b", b"a b", b"a%20b", b"A+B"]
    for key in alike:
        await target.put(key, b"content of " + key)
    for key in alike:
        assert await target.read(key) == b"content of " + key
    assert set(await find(target, *alike)) == set(alike)


# --- put ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 700, 65_535, 65_536, 65_537, 600_000, 1_048_577])
async def test_an_object_arrives_byte_for_byte(target: Bench, size: int) -> None:
    data = pattern(size)
    stored = await target.store.put_object(
        target.bucket, b"dir/key", body_of(data), ATTRIBUTES, md5=None
    )
    assert stored.size == size
    await target.settle(stored)
    assert await target.read(b"dir/key") == data
    head = await target.store.head_object(target.bucket, b"dir/key")
    assert (head.size, head.etag) == (size, stored.etag)
    assert (await find(target, b"dir/key"))[b"dir/key"][:3] == (b"dir/key", size, stored.etag)


async def test_a_put_replaces_the_whole_object(target: Bench) -> None:
    await target.put(b"key", pattern(100_000))
    await target.put(b"key", b"short")
    assert await target.read(b"key") == b"short"


@pytest.mark.parametrize("size", [10, 200_000])
async def test_an_md5_that_fits_is_taken_and_another_refused(target: Bench, size: int) -> None:
    if not target.checks_md5:
        pytest.skip("the server takes any Content-MD5")
    data = pattern(size)
    md5 = hashlib.md5(data).digest()
    with pytest.raises(Corrupted):
        await target.store.put_object(
            target.bucket, b"key", body_of(data[:-1] + b"\0"), ATTRIBUTES, md5=md5
        )
    assert await target.read(b"key") is None
    stored = await target.store.put_object(
        target.bucket, b"key", body_of(data), ATTRIBUTES, md5=md5
    )
    await target.settle(stored)
    assert await target.read(b"key") == data


@pytest.mark.parametrize("arrive", [0, 1, 699, 150_000])
async def test_a_body_that_breaks_leaves_nothing(target: Bench, arrive: int) -> None:
    body = BreakingBody(pattern(arrive), 200_000, ConnectionLost("the source went away"))
    with pytest.raises(ConnectionLost, match="the source went away"):
        await target.store.put_object(target.bucket, b"key", body, ATTRIBUTES, md5=None)
    assert await target.read(b"key") is None
    assert await find(target, b"key") == {}


async def test_a_body_that_breaks_leaves_the_former_object_alone(target: Bench) -> None:
    await target.put(b"key", b"former")
    body = BreakingBody(pattern(5_000), 20_000, ConnectionLost("the source went away"))
    with pytest.raises(ConnectionLost):
        await target.store.put_object(target.bucket, b"key", body, ATTRIBUTES, md5=None)
    assert await target.read(b"key") == b"former"


@pytest.mark.parametrize(("arrive", "size"), [(0, 1), (99, 100), (70_000, 80_000)])
async def test_fewer_bytes_than_announced_are_no_object(
    target: Bench, arrive: int, size: int
) -> None:
    body = BreakingBody(pattern(arrive), size)
    with pytest.raises(Truncated):
        await target.store.put_object(target.bucket, b"key", body, ATTRIBUTES, md5=None)
    assert await target.read(b"key") is None


@pytest.mark.parametrize(("arrive", "size"), [(1, 0), (101, 100), (90_000, 80_000)])
async def test_more_bytes_than_announced_are_no_object(
    target: Bench, arrive: int, size: int
) -> None:
    body = BreakingBody(pattern(arrive), size)
    with pytest.raises(BadAnswer):
        await target.store.put_object(target.bucket, b"key", body, ATTRIBUTES, md5=None)
    assert await target.read(b"key") is None


async def test_what_a_target_carries_can_be_read_from_its_limits(target: Bench) -> None:
    limits = target.store.limits
    headers = {"content-type": "text/x-test", "x-amz-meta-colour": "blue"}
    await target.put(b"key", b"data", Attributes(headers, {"a": "b"}, "STANDARD", MODIFIED))
    head = await target.store.head_object(target.bucket, b"key")
    assert (headers.items() <= dict(head.headers).items()) == limits.carries_headers
    assert bool(head.etag) == limits.etags
    if limits.carries_tags:
        assert await target.store.get_object_tagging(target.bucket, b"key") == {"a": "b"}


async def test_many_puts_at_once_do_not_mix(target: Bench) -> None:
    contents = {b"d%d/key-%d" % (n % 3, n): pattern(n * 9_001, n) for n in range(20)}
    stored = await asyncio.gather(
        *(
            target.store.put_object(target.bucket, key, body_of(data), ATTRIBUTES, md5=None)
            for key, data in contents.items()
        )
    )
    await target.settle(*stored)
    for key, data in contents.items():
        assert await target.read(key) == data


# --- find, head, discard --------------------------------------------------------------------------


async def test_find_gives_those_that_exist_and_only_those(target: Bench) -> None:
    for key in (b"a", b"b/1", b"b/3", b"c"):
        await target.put(key, key * 2)
    found = await find(target, b"a", b"a/x", b"b", b"b/1", b"b/2", b"b/3", b"bb", b"z", b"a//b")
    assert set(found) == {b"a", b"b/1", b"b/3"}
    for key, listed in found.items():
        assert (listed.key, listed.size) == (key, len(key) * 2)
    assert await find(target) == {}


async def test_the_head_of_nothing_is_none(target: Bench) -> None:
    await target.put(b"a", b"a")
    for key in (b"b", b"a/b", b"no/such/key"):
        assert await target.store.head_object(target.bucket, key) is None


@pytest.mark.parametrize("settled", [False, True])
async def test_discard_removes_what_was_stored(target: Bench, settled: bool) -> None:
    stored = await target.store.put_object(
        target.bucket, b"d/key", body_of(b"bad"), ATTRIBUTES, md5=None
    )
    if settled:
        await target.settle(stored)
    await target.store.discard(target.bucket, b"d/key", stored)
    assert await target.read(b"d/key") is None
    await target.store.discard(target.bucket, b"d/key", stored)  # again: nothing to do


async def test_discard_leaves_a_newer_object_alone(target: Bench) -> None:
    stored = await target.put(b"key", b"bad")
    await target.put(b"key", b"good!")
    await target.store.discard(target.bucket, b"key", stored)
    assert await target.read(b"key") == b"good!"


# --- settle and digest ----------------------------------------------------------------------------


@pytest.mark.parametrize("count", [0, 1, 3, 4, 40])
async def test_settle_answers_for_each_and_harms_nobody_twice(target: Bench, count: int) -> None:
    stored: list[Stored] = []
    for number in range(count):
        key = b"d%d/key-%d" % (number % 7, number)
        stored.append(
            await target.store.put_object(
                target.bucket, key, body_of(b"%d" % number), ATTRIBUTES, md5=None
            )
        )
    for _ in range(2):
        assert await target.store.settle(stored) == [None] * count
    for number in range(count):
        assert await target.read(b"d%d/key-%d" % (number % 7, number)) == b"%d" % number


@pytest.mark.parametrize("size", [0, 1, 2_500, 1_048_577])
@pytest.mark.parametrize("settled", [False, True])
async def test_a_digest_is_right_or_not_given(target: Bench, size: int, settled: bool) -> None:
    data = pattern(size)
    await target.put(b"d/key", b"an older object")
    stored = await target.store.put_object(
        target.bucket, b"d/key", body_of(data, 65_536), ATTRIBUTES, md5=None
    )
    if settled:
        await target.settle(stored)
    pieces = [data[start : start + 1000] for start in range(0, max(size, 1), 1000)]
    of_parts = hashlib.md5(b"".join(hashlib.md5(piece).digest() for piece in pieces)).digest()
    expected = {
        ("md5", None): hashlib.md5(data).digest(),
        ("crc64nvme", None): checksums.crc64nvme(data).to_bytes(8, "big"),
        ("md5", 1000): of_parts,
    }
    for (algorithm, part_size), digest in expected.items():
        got = await target.store.digest(target.bucket, b"d/key", algorithm, part_size)
        assert got in (None, digest)
    assert await target.store.digest(target.bucket, b"d/key", "no-such-digest", None) is None
    assert await target.store.digest(target.bucket, b"missing", "md5", None) is None


# --- cancellation ---------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [3_000, 200_000])
async def test_a_put_cancelled_anywhere_leaves_old_or_new_but_nothing_between(
    target: Bench, size: int
) -> None:
    old, new = b"old", pattern(size)

    async def put() -> None:
        stored = await target.store.put_object(
            target.bucket, b"d/key", body_of(new), ATTRIBUTES, md5=None
        )
        await target.settle(stored)

    for steps in range(target.steps):
        await target.put(b"d/key", old)
        await cancel_after(steps, put())
        assert await target.read(b"d/key") in (old, new)
    await put()
    assert await target.read(b"d/key") == new


async def test_an_upload_cancelled_anywhere_goes_on(target: Bench) -> None:
    size = max(target.part_size, 70_000)
    pieces = [pattern(size, 1), pattern(size, 2), b"tail"]
    upload_id = await begin(target, b"d/key", 2 * size + 4)

    async def go_on() -> None:
        held = {part.number: part for part in await list_parts(target, b"d/key", upload_id)}
        for number, piece in enumerate(pieces, 1):
            if number not in held:
                held[number] = await target.send(
                    b"d/key", upload_id, number, (number - 1) * size, piece
                )
        stored = await target.store.complete_multipart_upload(
            target.bucket, b"d/key", upload_id, [held[number] for number in (1, 2, 3)]
        )
        await target.settle(stored)

    for steps in range(target.steps):
        if await target.read(b"d/key") is not None:
            break
        try:
            await cancel_after(steps, go_on())
        except NoSuchUpload:
            break  # it was completed, and only the answer cancelled
    if await target.read(b"d/key") is None:
        await go_on()
    assert await target.read(b"d/key") == b"".join(pieces)

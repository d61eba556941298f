"""Walking listings: order, progress, and looking keys up by listing their range."""

from __future__ import annotations

from bisect import bisect_right
from typing import cast
from xml.etree.ElementTree import fromstring

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3flow.errors import BadAnswer, NoSuchBucket
from s3flow.model import Listed, ObjectInfo
from s3flow.stores.s3.listing import Listings, just_below
from s3flow.stores.s3.rest import Rest
from s3flow.wire.xml import ListResult

KEYS = st.text(min_size=1, max_size=20).map(lambda text: text.encode("utf-8", "ignore")).filter(len)


def listed(key: bytes) -> Listed:
    return Listed(key, 1, "etag", 0, "STANDARD")


class Bucket(Listings):
    """Listings of keys in memory; *size* to a page. Counts what was asked."""

    def __init__(self, keys: list[bytes], size: int = 1000) -> None:
        super().__init__(cast(Rest, NamesOnly()))
        self.keys = sorted(keys)
        self.size = size
        self.lists = 0
        self.heads = 0

    async def _fetch(self, bucket: str, prefix: bytes, after: bytes, token: str) -> ListResult:
        self.lists += 1
        prefix.decode()
        after.decode()
        rest = [
            key for key in self.keys[bisect_right(self.keys, after) :] if key.startswith(prefix)
        ]
        return ListResult([listed(key) for key in rest[: self.size]], len(rest) > self.size, "")

    async def head(self, bucket: str, key: bytes) -> ObjectInfo | None:
        self.heads += 1
        return ObjectInfo(1, "etag") if key in self.keys else None


class Pages(Listings):
    """Listings that answer with *results* in turn, then with the last one for ever."""

    def __init__(self, *results: ListResult) -> None:
        super().__init__(cast(Rest, NamesOnly()))
        self.results = list(results)
        self.tokens: list[str] = []

    async def _fetch(self, bucket: str, prefix: bytes, after: bytes, token: str) -> ListResult:
        self.tokens.append(token)
        return self.results.pop(0) if len(self.results) > 1 else self.results[0]


class NamesOnly:
    def where(self, bucket: str, key: bytes | None) -> str:
        return f"{bucket}/{key!r}"


@given(KEYS)
def test_just_below_is_below_and_can_be_sent(key: bytes) -> None:
    below = just_below(key)
    assert below < key
    below.decode()
    assert len(below) <= 1024


@given(KEYS, KEYS)
def test_little_lies_between_a_key_and_just_below_it(key: bytes, other: bytes) -> None:
    if just_below(key) < other < key:
        text, found = key.decode(), other.decode()
        assert found.startswith(text[:-1])
        assert len(found) > len(text) or found[-1] < text[-1] <= " "


@pytest.mark.parametrize("last", ["\0", "\x01", " ", "!", "\ue000", "\U00010000", "\x80"])
def test_just_below_is_text_that_xml_can_hold(last: str) -> None:
    key = ("a" + last).encode()
    below = just_below(key).decode()
    assert below.encode() < key
    assert fromstring(f"<x>{below}</x>").text == below


@given(st.sets(KEYS), st.sets(KEYS), st.integers(1, 5))
async def test_find_gives_exactly_the_wanted_keys_that_exist(
    there: set[bytes], wanted: set[bytes], size: int
) -> None:
    bucket = Bucket(list(there), size)
    found = await bucket.find("b", sorted(wanted), bucket.head)
    assert found == {key: listed(key)._replace(etag="etag") for key in wanted & there}


async def test_finding_a_page_of_keys_takes_one_or_two_requests() -> None:
    keys = [b"archive/%06d" % number for number in range(5000)]
    bucket = Bucket(keys)
    found = await bucket.find("b", keys[1000:2000], bucket.head)
    assert len(found) == 1000
    assert bucket.lists <= 2
    assert bucket.heads == 0


async def test_sparse_keys_are_looked_up_one_by_one() -> None:
    keys = [b"archive/%06d" % number for number in range(200_000)]
    bucket = Bucket(keys)
    wanted = keys[::5000]
    found = await bucket.find("b", wanted, bucket.head)
    assert sorted(found) == wanted
    assert bucket.lists <= 3
    assert bucket.heads <= len(wanted)


async def test_a_failing_look_up_raises_as_itself() -> None:
    async def head(bucket: str, key: bytes) -> ObjectInfo | None:
        raise NoSuchBucket("gone")

    keys = [b"archive/%06d" % number for number in range(200_000)]
    with pytest.raises(NoSuchBucket):
        await Bucket(keys).find("b", keys[::5000], head)


async def test_keys_that_s3_cannot_hold_are_not_found() -> None:
    bucket = Bucket([b"a", b"b"])
    assert sorted(await bucket.find("b", [b"", b"a", b"b", b"\xff"], bucket.head)) == [b"a", b"b"]
    assert await bucket.find("b", [], bucket.head) == {}


async def test_an_empty_truncated_page_is_followed_by_its_token() -> None:
    pages = Pages(
        ListResult([], True, "t1"),
        ListResult([], True, "t2"),
        ListResult([listed(b"a")], False, ""),
    )
    page = await pages.page("b", b"", b"")
    assert page.last
    assert [entry.key for entry in page.entries] == [b"a"]
    assert pages.tokens == ["", "t1", "t2"]


@pytest.mark.parametrize("token", ["", "same"])
async def test_paging_that_does_not_move_on_is_a_bad_answer(token: str) -> None:
    with pytest.raises(BadAnswer, match="does not move on"):
        await Pages(ListResult([], True, token)).page("b", b"", b"")


@pytest.mark.parametrize(
    ("keys", "after"),
    [
        ([b"b", b"a"], b""),
        ([b"a", b"a"], b""),
        ([b"a"], b"a"),  # start-after ignored
        ([b"a", b"b"], b"b"),
    ],
)
async def test_a_listing_out_of_order_is_a_bad_answer(keys: list[bytes], after: bytes) -> None:
    result = ListResult([listed(key) for key in keys], False, "")
    with pytest.raises(BadAnswer, match="byte order"):
        await Pages(result).page("b", b"", after)


async def test_a_listing_beyond_its_prefix_is_a_bad_answer() -> None:
    result = ListResult([listed(b"p/a"), listed(b"q/a")], False, "")
    with pytest.raises(BadAnswer, match="without that prefix"):
        await Pages(result).page("b", b"p/", b"")

"""Answers that were meant for other requests: a proxy lost count, or kept one back."""

from __future__ import annotations

from urllib.parse import quote, quote_plus
from xml.sax.saxutils import escape

import pytest

from s3flow import errors
from s3flow.model import Attributes, Part
from s3flow.stores.s3.listing import just_below
from s3flow.stores.s3.whose import repeated
from tests.contract.s3_scripted import BUCKET, Answer, Request, Script, scripted

PLAIN = Attributes({}, {}, "STANDARD", 0, "our-token")
KEYS = [b"a key", b"a+b", b"100%25", "caf\u00e9/\U0001f600".encode(), b"<&>"]
SAID = "<{0}><Key>{1}</Key><Prefix>{2}</Prefix><UploadId>{3}</UploadId><ETag>e</ETag></{0}>"


def root(request: Request) -> str:
    """Give the name that an answer to *request* has."""
    if "uploads" in request.query:
        return "InitiateMultipart" if request.method == "POST" else "ListMultipartUploadsResult"
    return "CompleteMultipartUploadResult" if request.method == "POST" else "ListPartsResult"


def about(key: str, upload: str = "ours") -> Script:
    """Give answers that say what they are about."""
    text = key.replace("&", "&amp;").replace("<", "&lt;")
    return lambda request: Answer(body=SAID.format(root(request), text, text, upload).encode())


@pytest.mark.parametrize("key", KEYS)
async def test_what_names_the_request_is_believed(key: bytes) -> None:
    async with scripted(about(key.decode())) as server:
        store = server.store()
        assert await store.create_multipart_upload(BUCKET, key, PLAIN, 1) == "ours"
        assert await store.list_parts(BUCKET, key, "ours") == []
        assert await store.list_multipart_uploads(BUCKET, key) == []
        stored = await store.complete_multipart_upload(BUCKET, key, "ours", [Part(1, 1, "e", "")])
        assert stored.etag == "e"


async def test_what_names_another_is_not() -> None:
    async with scripted(about("another key", "theirs")) as server:
        store = server.store()
        with pytest.raises(errors.BadAnswer, match="another key"):
            await store.create_multipart_upload(BUCKET, b"a key", PLAIN, 1)
        with pytest.raises(errors.BadAnswer, match="theirs"):
            await store.list_parts(BUCKET, b"a key", "ours")
        with pytest.raises(errors.BadAnswer, match="another key"):
            await store.list_multipart_uploads(BUCKET, b"a key")
        # Whether it was done is for whoever asked to find out.
        with pytest.raises(errors.ConnectionLost, match="another key"):
            await store.complete_multipart_upload(BUCKET, b"a key", "ours", [Part(1, 1, "e", "")])


async def test_a_store_that_encodes_what_it_repeats_is_believed() -> None:
    async with scripted(about("a%2Bb+c%20d")) as server:
        store = server.store()
        assert await store.create_multipart_upload(BUCKET, b"a+b c d", PLAIN, 1) == "ours"
        assert await store.list_multipart_uploads(BUCKET, b"a+b c d") == []


def listing(*keys: str, name: str = BUCKET, prefix: str = "", after: str = "") -> Answer:
    """Give a listing that repeats what is said of its request."""
    entries = "".join(
        f"<Contents><Key>{key}</Key><LastModified>2026-01-01T00:00:00Z</LastModified><ETag>e</ETag>"
        "<Size>1</Size></Contents>"
        for key in keys
    )
    # Some name it behind the entries.
    body = (
        f"<ListBucketResult><Name>{name}</Name><EncodingType>url</EncodingType>{entries}"
        f"<IsTruncated>false</IsTruncated><Prefix>{prefix}</Prefix><StartAfter>{after}</StartAfter>"
        "</ListBucketResult>"
    )
    return Answer(body=body.encode())


def in_turn(*answers: Answer) -> Script:
    """Give *answers*, and then the last one for ever."""
    left = list(answers)
    return lambda _: left.pop(0) if len(left) > 1 else left[0]


@pytest.mark.parametrize("write", [quote, quote_plus, str], ids=["%20", "plus", "as it is"])
@pytest.mark.parametrize("key", [*KEYS, b"line\x01break", b"no utf-8 \xff", b" blanks "])
async def test_a_listing_that_names_its_request_is_believed(key: bytes, write: type[str]) -> None:
    text = escape(write(key.decode(errors="replace")))
    async with scripted(lambda _: listing(prefix=text, after=text)) as server:
        assert (await server.store().list_page(BUCKET, key, key)).entries == []


async def test_where_a_look_starts_may_be_repeated_without_its_last_character() -> None:
    key = b"p/b"
    after = just_below(key).decode()
    assert after.endswith("\U0010ffff")
    for text in (after, quote(after), after.replace("\U0010ffff", "\ufffd"), after[:-1]):
        async with scripted(lambda _, text=text: listing(after=text)) as server:  # type: ignore[misc]
            assert (await server.store().list_page(BUCKET, b"", after.encode())).last


@pytest.mark.parametrize("text", ["line?break", "linebreak", "line\ufffdbreak", "line"])
async def test_what_xml_cannot_hold_may_be_repeated_as_anything(text: str) -> None:
    async with scripted(lambda _: listing(prefix=text)) as server:
        assert (await server.store().list_page(BUCKET, b"line\x01break", b"")).last


@pytest.mark.parametrize(
    "answer",
    [
        listing(prefix="q/"),
        listing("p/5001", prefix="p/", after="p/5000"),
        listing("p/1", after="p"),
    ],
    ids=["another prefix", "a later page", "not from the start"],
)
async def test_a_listing_of_another_prefix_or_page_is_refused(answer: Answer) -> None:
    async with scripted(lambda _: answer) as server:
        with pytest.raises(errors.BadAnswer, match="was not asked for"):
            await server.store().list_page(BUCKET, b"p/", b"")


async def test_a_look_for_a_key_believes_no_listing_from_elsewhere() -> None:
    foreign = listing("zoo", after="zebra")
    async with scripted(lambda _: foreign) as server:
        with pytest.raises(errors.BadAnswer, match="zebra"):
            await server.store().find(BUCKET, [b"b"])


async def test_a_look_for_keys_believes_no_other_listing() -> None:
    foreign = listing("a", prefix="another")

    async with scripted(lambda _: foreign) as server:
        with pytest.raises(errors.BadAnswer, match="another"):
            await server.store().find(BUCKET, [b"a"])


async def test_another_buckets_listing_is_refused_where_the_own_name_is_known() -> None:
    script = in_turn(listing("a"), listing(name="theirs"))
    async with scripted(script) as server:
        store = server.store()
        assert len((await store.list_page(BUCKET, b"", b"")).entries) == 1
        with pytest.raises(errors.BadAnswer, match="theirs"):
            await store.list_page(BUCKET, b"", b"")


async def test_another_buckets_listing_is_asked_for_again_where_no_name_is_known() -> None:
    async with scripted(in_turn(listing(name="theirs"), listing("a"))) as server:
        assert [
            each.key for each in (await server.store().list_page(BUCKET, b"", b"")).entries
        ] == [b"a"]
    async with scripted(in_turn(listing(name="theirs"), listing(name="a third"))) as server:
        with pytest.raises(errors.BadAnswer, match="a third"):
            await server.store().list_page(BUCKET, b"", b"")


async def test_an_access_point_may_answer_by_another_name() -> None:
    async with scripted(lambda _: listing("a", name="the-bucket-behind")) as server:
        store = server.store()
        for _ in range(3):
            assert len((await store.list_page(BUCKET, b"", b"")).entries) == 1
        assert len(server.requests) == 4  # twice before the name was believed


async def test_silence_is_doubted_where_the_prefix_used_to_be_repeated() -> None:
    script = in_turn(listing("p/1", prefix="p/"), listing(), listing("p/1", prefix="p/"))
    async with scripted(script) as server:
        store = server.store()
        for _ in range(2):
            assert len((await store.list_page(BUCKET, b"p/", b"")).entries) == 1
    # Some say less of what is empty.
    async with scripted(in_turn(listing("p/1", prefix="p/"), listing())) as server:
        store = server.store()
        assert (await store.list_page(BUCKET, b"p/", b"")).entries
        assert not (await store.list_page(BUCKET, b"p/", b"")).entries
        assert len(server.requests) == 3


async def test_silence_of_what_was_not_asked_or_never_was_repeated_costs_no_second_question() -> (
    None
):
    script = in_turn(listing("p/2", prefix="p/", after="p/1"), listing("a"))
    async with scripted(script) as server:
        store = server.store()
        assert (await store.list_page(BUCKET, b"p/", b"p/1")).entries
        assert (await store.list_page(BUCKET, b"", b"")).entries
        assert len(server.requests) == 2
    async with scripted(lambda _: listing("p/1")) as server:
        store = server.store()
        for _ in range(2):
            assert (await store.list_page(BUCKET, b"p/", b"")).entries
        assert len(server.requests) == 2


def test_prefixes_that_keys_have_in_common_are_not_what_was_asked_for() -> None:
    said = repeated(
        b"<ListBucketResult><Name>b</Name><Contents><Key>a</Key></Contents><CommonPrefixes>"
        b"<Prefix>b/</Prefix></CommonPrefixes><StartAfter>0</StartAfter></ListBucketResult>"
    )
    assert said == {"Name": "b", "StartAfter": "0"}

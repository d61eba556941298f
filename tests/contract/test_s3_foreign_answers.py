"""Answers that were meant for other requests: a proxy lost count, or kept one back."""

from __future__ import annotations

import pytest

from s3flow import errors
from s3flow.model import Attributes, Part
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

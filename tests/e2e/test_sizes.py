"""One byte and many parts, copied inside the store and streamed: what travels with them is the same."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.e2e.conftest import Stage, staged
from tests.e2e.content import PART, body_of

ABOUT = {
    "ContentType": "text/x; charset=utf-8",
    "ContentEncoding": "br",
    "ContentDisposition": 'attachment; filename="a b.txt"',
    "ContentLanguage": "de, en",
    "CacheControl": "max-age=60, private",
    "Expires": datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC),
    "Metadata": {"a": "b", "empty": "", "long": "x" * 500},
    "StorageClass": "STANDARD_IA",
    "WebsiteRedirectLocation": "/elsewhere?a=b",
}
TAGS = "k=v&space%20d=a%2Bb"
# What an answer to HEAD says of the object itself, by boto3's names.
SAID = {*ABOUT, "ServerSideEncryption", "ExpiresString"}


def put_in_parts(stage: Stage, key: str) -> None:
    """Put an object of three parts with all that can travel with one."""
    place = {"Bucket": stage.source, "Key": key}
    upload = stage.ours.create_multipart_upload(**place, **ABOUT, Tagging=TAGS)["UploadId"]
    parts = [
        {
            "PartNumber": number,
            "ETag": stage.ours.upload_part(**place, UploadId=upload, PartNumber=number, Body=piece)[
                "ETag"
            ],
        }
        for number, piece in enumerate(body_of(key, 2 * PART + 7), 1)
    ]
    done = {"Parts": parts}
    stage.ours.complete_multipart_upload(**place, UploadId=upload, MultipartUpload=done)


@pytest.fixture(params=["ministack", "moto"])
def one(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Stage]:
    """Give a stage on a server that is to be had by pip."""
    with staged(request.getfixturevalue(f"{request.param}_server"), tmp_path) as stage:
        yield stage


@pytest.mark.parametrize("encryption", ["", "AES256"])
def test_what_travels_is_the_same_for_all_sizes_and_ways(one: Stage, encryption: str) -> None:
    stage = one
    # One account: ministack shows nobody the buckets of another.
    stage.endpoints["theirs"] = {**stage.endpoints["ours"], "encryption": encryption}
    stage.target = stage.source
    for size in (0, 1):
        stage.put(f"in/{size}", b"x" * size, Tagging=TAGS, **ABOUT)
    put_in_parts(stage, "in/large")
    stage.ours.put_bucket_website(
        Bucket=stage.source, WebsiteConfiguration={"IndexDocument": {"Suffix": "index.html"}}
    )
    ways = {"server-only": "copied", "stream-only": "streamed"}
    program = stage.program(
        *(
            {
                "method": method,
                "source": f"ours:{stage.source}/in/",
                "target": f"theirs:{stage.target}/{name}/",
                "multipart_threshold": PART,
                "part_size": PART,
            }
            for method, name in ways.items()
        )
    )
    program.run("sync")
    methods = [set(flow["methods"]) for flow in program.status().values()]
    assert methods == [{"server_copy", "server_multipart"}, {"put", "multipart"}]

    def said(key: str) -> dict[str, object]:
        head = stage.ours.head_object(Bucket=stage.target, Key=key)
        head["Metadata"].pop("s3flow-transfer", None)  # which upload it was, not what
        tags = stage.ours.get_object_tagging(Bucket=stage.target, Key=key)["TagSet"]
        about = {name: head.get(name) for name in SAID}
        return {**about, "tags": sorted((tag["Key"], tag["Value"]) for tag in tags)}

    for size in ("0", "1", "large"):
        wanted = said(f"in/{size}")
        assert wanted["Metadata"] == ABOUT["Metadata"]
        # ministack forgets the tags of uploads, those of the source and those of copies.
        kept = stage.server.store == "moto" or size != "large"
        assert len(wanted["tags"]) == (2 if kept else 0)  # type: ignore[arg-type]
        if encryption:
            wanted["ServerSideEncryption"] = encryption
        for name in ways.values():
            assert said(f"{name}/{size}") == wanted, (name, size)

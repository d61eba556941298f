"""An account's buckets in several regions: each is asked where it is, signed for there."""

from __future__ import annotations

import re

from s3flow.model import Original
from tests.contract.s3_scripted import Answer, Request, Script, Scripted, error, scripted

REGIONS = {"at-home": "us-east-1", "in-ireland": "eu-west-1", "in-mumbai": "ap-south-1"}
EMPTY = (
    b"<ListBucketResult><IsTruncated>false</IsTruncated><KeyCount>0</KeyCount></ListBucketResult>"
)


def region_of(request: Request) -> str:
    """Read for which region a request is signed."""
    found = re.search(r"Credential=[^/]+/\d+/([^/]+)/s3/", request.headers["authorization"])
    assert found
    return found[1]


def bucket_of(request: Request) -> str:
    return request.target.partition("?")[0].strip("/").rpartition("/")[2]


def account(*, tells: bool, names: dict[str, str] = REGIONS) -> Script:
    """Make a service that takes requests in the right region alone, and *tells* regions or not."""

    def script(request: Request) -> Answer:
        if "list-type" not in request.query:
            lines = [
                f"<Bucket><Name>{name}</Name>"
                + (f"<BucketRegion>{region}</BucketRegion>" if tells else "")
                + "</Bucket>"
                for name, region in names.items()
            ]
            body = f"<ListAllMyBucketsResult><Buckets>{''.join(lines)}</Buckets></ListAllMyBucketsResult>"
            return Answer(200, body.encode())
        region = REGIONS[bucket_of(request)]
        if region_of(request) != region:
            answer = error(301, "PermanentRedirect")
            answer.headers = {"x-amz-bucket-region": region}
            return answer
        return Answer(200, EMPTY)

    return script


async def listed(server: Scripted, prefix: str) -> list[tuple[str, str]]:
    """List all buckets of the account; give the bucket and region of each request for a page."""
    url = f"http://127.0.0.1:{server.port}/{prefix}"
    store = server.store(server.settings(url=url, addressing="path"))
    for bucket in await store.list_buckets():
        assert (await store.list_page(bucket.name, b"", b"")).last
    asked = [it for it in server.requests if "list-type" in it.query]
    return [(bucket_of(it), region_of(it)) for it in asked]


AWS = ".amazonaws.com/"  # in an address, this says that AWS itself answers


async def test_regions_that_the_account_tells_are_asked_at_once() -> None:
    async with scripted(account(tells=True)) as server:
        assert await listed(server, AWS) == list(REGIONS.items())


async def test_redirects_are_followed_where_nothing_was_told() -> None:
    async with scripted(account(tells=False)) as server:
        asked = await listed(server, AWS)
    assert asked == [
        ("at-home", "us-east-1"),
        ("in-ireland", "us-east-1"),
        ("in-ireland", "eu-west-1"),
        ("in-mumbai", "us-east-1"),
        ("in-mumbai", "ap-south-1"),
    ]


async def test_what_no_region_can_be_called_is_not_believed() -> None:
    told = dict.fromkeys(REGIONS, "evil.example/x")
    async with scripted(account(tells=True, names=told)) as server:
        assert len(await listed(server, AWS)) == 5


async def test_other_services_regions_are_their_own_affair() -> None:
    async with scripted(account(tells=True)) as server:
        asked = await listed(server, "")
    assert asked[1] == ("in-ireland", "us-east-1")


async def test_a_copy_between_regions_is_asked_for_where_it_goes_to() -> None:
    def script(request: Request) -> Answer:
        bucket = request.target.strip("/").split("/")[-2]
        if region_of(request) != REGIONS[bucket]:
            answer = error(301, "PermanentRedirect")
            answer.headers = {"x-amz-bucket-region": REGIONS[bucket]}
            return answer
        return Answer(200, b"<CopyObjectResult><ETag>&quot;e&quot;</ETag></CopyObjectResult>")

    async with scripted(script) as server:
        url = f"http://127.0.0.1:{server.port}/{AWS}"
        store = server.store(server.settings(url=url, addressing="path"))
        original = Original("in-ireland", b"k", "e", 3)
        stored = await store.copy_object(
            original, "in-mumbai", b"k", storage_class="", with_tags=False
        )
        asked = server.requests[-1]
    assert stored.etag == "e"
    assert region_of(asked) == "ap-south-1"
    assert asked.headers["x-amz-copy-source"].strip("/").startswith("in-ireland/k")

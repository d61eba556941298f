"""Stores that mean harm, against each S3 verb: well-formed HTTP around headers and XML that lie.

Whatever is said, a verb gives an answer of its kind or raises an error of ours, follows nobody to
another host, and says nothing that would act on a terminal.
"""

from __future__ import annotations

import asyncio
import gzip
import random
import re
from collections import Counter
from collections.abc import Awaitable, Callable
from unittest.mock import patch

from s3flow.errors import S3flowError
from s3flow.model import Attributes, Doomed, ObjectInfo, Original, Part, Span
from s3flow.policies import Guard
from s3flow.ports import Body
from s3flow.stores.s3 import S3Store, rare
from tests.contract.s3_scripted import ACCESS, BUCKET, SECRET, Answer, Request, scripted
from tests.torture.hostile_servers import HANG
from tests.torture.programme import Broken
from tests.unit.hostile import Chunks

KEY, ETAG = b"a/key", "900150983cd24fb0d6963f7d28e17f72"
ABOUT = Attributes({"content-type": "x/y"}, {"t": "v"}, "STANDARD", 0, "token")
ORIGINAL = Original(BUCKET, KEY, ETAG, 10)
Verb = Callable[[S3Store], Awaitable[object]]


async def _read(body: Body) -> bytes:
    pieces = []
    while chunk := await body.read():
        pieces.append(bytes(chunk))
    return b"".join(pieces)


async def _get(store: S3Store, span: Span | None) -> bytes:
    return await _read(await store.get_object(BUCKET, KEY, etag=ETAG, span=span))


def _some(size: int) -> Body:
    return Chunks([b"x" * size])


DOOMED = [Doomed(KEY, ETAG), Doomed(b"b", ETAG, "v1"), Doomed(b"c d", ETAG)]
PARTS = [Part(1, 5, "e1", ""), Part(2, 5, "e2", "")]
VERBS: dict[str, Verb] = {
    "list_buckets": lambda s: s.list_buckets(),
    "list_page": lambda s: s.list_page(BUCKET, b"a/", b""),
    "get_object": lambda s: _get(s, None),
    "get_range": lambda s: _get(s, Span(1, 3)),
    "head_object": lambda s: s.head_object(BUCKET, KEY),
    "head_part": lambda s: s.head_object(BUCKET, KEY, part_number=1),
    "get_object_tagging": lambda s: s.get_object_tagging(BUCKET, KEY),
    "restore_object": lambda s: s.restore_object(
        BUCKET, KEY, version_id=None, days=3, tier="Standard"
    ),
    "delete_object": lambda s: s.delete_object(BUCKET, KEY, etag=ETAG),
    "delete_objects": lambda s: s.delete_objects(BUCKET, DOOMED, Guard.EACH),
    "delete_each": lambda s: s.delete_objects(BUCKET, DOOMED, Guard.NOT),
    "guard_of": lambda s: s.guard_of(BUCKET, b"a/", "flow"),
    "find": lambda s: s.find(BUCKET, [b"a/key", b"a/other"]),
    "put_object": lambda s: s.put_object(BUCKET, KEY, _some(3), ABOUT, md5=b"0" * 16),
    "put_large": lambda s: s.put_object(BUCKET, KEY, _some(100_000), ABOUT, md5=None),
    "create": lambda s: s.create_multipart_upload(BUCKET, KEY, ABOUT, 10),
    "upload_part": lambda s: s.upload_part(BUCKET, KEY, "id", 1, 0, _some(3)),
    "copy_object": lambda s: s.copy_object(
        ORIGINAL, BUCKET, KEY, storage_class="STANDARD", with_tags=True
    ),
    "upload_part_copy": lambda s: s.upload_part_copy(ORIGINAL, BUCKET, KEY, "id", 1, Span(0, 5)),
    "list_parts": lambda s: s.list_parts(BUCKET, KEY, "id"),
    "complete": lambda s: s.complete_multipart_upload(BUCKET, KEY, "id", PARTS),
    "abort": lambda s: s.abort_multipart_upload(BUCKET, KEY, "id"),
    "list_uploads": lambda s: s.list_multipart_uploads(BUCKET, b"a/"),
    "is_website": lambda s: s.is_website(BUCKET),
}

# --- what is said ----------------------------------------------------------------------------

TRUTHS = (
    "<ListBucketResult><EncodingType>url</EncodingType><IsTruncated>false</IsTruncated><Contents>"
    "<Key>a/key</Key><LastModified>2026-01-02T03:04:05.000Z</LastModified><ETag>&quot;e&quot;</ETag>"
    "<Size>3</Size><StorageClass>STANDARD</StorageClass></Contents></ListBucketResult>",
    "<ListBucketResult><IsTruncated>true</IsTruncated><NextContinuationToken>t"
    "</NextContinuationToken></ListBucketResult>",
    "<ListAllMyBucketsResult><Buckets><Bucket><Name>b</Name><BucketRegion>x</BucketRegion></Bucket>"
    "</Buckets><ContinuationToken>t</ContinuationToken></ListAllMyBucketsResult>",
    "<Tagging><TagSet><Tag><Key>k</Key><Value>v</Value></Tag></TagSet></Tagging>",
    "<ListPartsResult><IsTruncated>true</IsTruncated><NextPartNumberMarker>1</NextPartNumberMarker>"
    "<Part><PartNumber>1</PartNumber><Size>5</Size><ETag>e</ETag><ChecksumCRC64NVME>AAAAAAAAAAA="
    "</ChecksumCRC64NVME></Part></ListPartsResult>",
    "<ListMultipartUploadsResult><IsTruncated>true</IsTruncated><NextKeyMarker>k</NextKeyMarker>"
    "<NextUploadIdMarker>i</NextUploadIdMarker><EncodingType>url</EncodingType><Upload><Key>a/k</Key>"
    "<UploadId>i</UploadId><Initiated>2026-01-02T03:04:05.000Z</Initiated></Upload>"
    "</ListMultipartUploadsResult>",
    "<InitiateMultipartUploadResult><UploadId>id</UploadId></InitiateMultipartUploadResult>",
    '<CompleteMultipartUploadResult><ETag>"e-2"</ETag><ChecksumCRC64NVME>AAAAAAAAAAA='
    "</ChecksumCRC64NVME></CompleteMultipartUploadResult>",
    "<CopyObjectResult><ETag>e</ETag><LastModified>2026-01-02T03:04:05Z</LastModified>"
    "</CopyObjectResult>",
    "<CopyPartResult><ETag>e</ETag></CopyPartResult>",
    "<DeleteResult><Deleted><Key>a/key</Key></Deleted><Error><Key>c d</Key><Code>AccessDenied</Code>"
    "<Message>m</Message></Error></DeleteResult>",
    "<ListVersionsResult><Version><VersionId>v</VersionId></Version></ListVersionsResult>",
    "<LocationConstraint>eu-west-1</LocationConstraint>",
    "<Error><Code>PermanentRedirect</Code><Message>m</Message><Endpoint>127.0.0.1:{trap}</Endpoint>"
    "<Region>127.0.0.1:{trap}/</Region></Error>",
    "<Error><Code>{code}</Code><Message>go away\u009b2J\u2028{secret}\x7f</Message></Error>",
    "<html><body>Error 502</body></html>",
    "abc",
    "",
)
CODES = (
    *("SlowDown", "ExpiredToken", "NoSuchKey", "NoSuchUpload", "NoSuchBucket", "AccessDenied"),
    *("InvalidObjectState", "RequestTimeTooSkewed", "AuthorizationHeaderMalformed", "\u009b31m"),
    *("RestoreAlreadyInProgress", "InternalError", "BadDigest", "KMS.DisabledException", ""),
    *("InvalidAccessKeyId", "GlacierExpeditedRetrievalNotAvailable", "PreconditionFailed"),
)
ODD = (
    *("", " ", "-1", "+1", "0x10", "1e9", "NaN", "inf", "9" * 30, "9" * 5000, "\u0663", "true\n"),
    *("99999-13-45T99:99:99Z", "2026-01-02T03:04:05+99:99", "0001-01-01T00:00:00+14:00"),
    *(
        "9999-12-31T23:59:59.999999-14:00",
        "a" * 3000,
        "%",
        "%zz",
        "%00",
        "%0d%0a",
        "..",
        "\u009b2J",
    ),
    *("127.0.0.1:{trap}", "@127.0.0.1", "169.254.169.254", "[fd00:ec2::254]", "localhost#"),
    *("&#10;", "&#x10FFFF;", "<b>in</b>", "<Error/>", "<![CDATA[<Key>x</Key>]]>", "<!-- -->"),
)
DATES = (
    *(
        "Thu, 01 Jan 1970 00:00:00 GMT",
        "Wed, 21 Oct 9999 99:99:99 GMT",
        "Wed, 99 Oct 2015 07:28:00 GMT",
    ),
    *("Wed, 21 Oct 0000 07:28:00 GMT", "21 Oct 99999 07:28:00", "Mon, 01 Jan 0001 00:00:00 +1400"),
    *("Wed, 21 Oct 2015 07:28:00 +999999", "Wed, 21 Oct 2015", "nonsense", "\x1b[2J", "9" * 5000),
)
NAMES = (
    *("etag", "last-modified", "date", "content-range", "retry-after", "x-amz-restore", "location"),
    *("x-amz-version-id", "x-amz-mp-parts-count", "x-amz-tagging-count", "x-amz-missing-meta"),
    *("x-amz-bucket-region", "x-amz-request-id", "x-amz-storage-class", "x-amz-checksum-crc64nvme"),
    *("x-amz-checksum-type", "content-encoding", "content-type", "x-amz-meta-\xe9", "x-amz-meta-a"),
    *("x-amz-server-side-encryption", "x-amz-copy-source-version-id", "x-amz-delete-marker"),
)
STATUSES = (
    200,
    200,
    200,
    200,
    201,
    202,
    204,
    206,
    299,
    301,
    302,
    303,
    304,
    307,
    308,
    400,
    401,
    403,
)
STATUSES += (
    404,
    405,
    407,
    408,
    409,
    411,
    412,
    416,
    429,
    451,
    499,
    500,
    501,
    502,
    503,
    504,
    505,
    999,
)
_TEXT = re.compile(r">([^<>]*)</")
_TAG = re.compile(r"<(/?\w+)>")


def _body(draw: random.Random, trap: int) -> bytes:
    """Write a document that is true but for some lies."""
    text = draw.choice(TRUTHS)
    for _ in range(draw.choice((0, 1, 1, 2, 3))):
        for pattern in (draw.choice((_TEXT, _TEXT, _TEXT, _TAG)),):
            found = list(pattern.finditer(text))
            if found:
                one = draw.choice(found)
                new = (
                    draw.choice((*ODD, *DATES))
                    if pattern is _TEXT
                    else draw.choice(("Key", "x", ""))
                )
                text = text[: one.start(1)] + new + text[one.end(1) :]
    told = text.replace("{trap}", str(trap)).replace("{code}", draw.choice(CODES))
    body = told.replace("{secret}", SECRET).encode()
    for _ in range(draw.choice((0, 0, 0, 0, 1, 2))):
        at = draw.randrange(len(body) + 1)
        new = draw.choice((b"", b"\0", b"\xff", b"<", b"]]>", b"<!DOCTYPE x>", b"&x;", b"\x1b[2J"))
        body = body[:at] + new + body[at + draw.randrange(3) :]
    return body[: draw.randrange(len(body) + 1)] if draw.random() < 0.05 else body


def _lie(request: Request, draw: random.Random, trap: int) -> Answer:
    body, headers = _body(draw, trap), {}
    for name in draw.sample(NAMES, draw.randrange(8)):
        told = draw.choice((*ODD, *DATES, *DATES)).replace("{trap}", str(trap))
        headers[name] = re.sub(r"[\r\n]", "", told).encode().decode("latin-1")
    if draw.random() < 0.6:
        headers["etag"] = f'"{ETAG}"'
    if draw.random() < 0.3:
        headers["content-range"] = draw.choice(("bytes 1-2/3", "bytes 1-2/*", "bytes 0-2/3"))
    if draw.random() < 0.4:
        headers["location"] = f"http://127.0.0.1:{trap}{request.target}"
    if draw.random() < 0.05:
        headers["content-encoding"], body = "gzip", gzip.compress(body * 1000)
    status = draw.choice(STATUSES)
    bare = status in (204, 304)
    return Answer(status, b"" if bare else body, headers, length=0 if bare else -1)


# --- what comes of it ------------------------------------------------------------------------


async def tempt(seed: int, count: int) -> Counter[str]:
    """Ask every verb of a store that lies, *count* times, and judge what comes."""
    draw = random.Random(seed)
    told: Counter[str] = Counter()
    trapped: list[bytes] = []

    async def trap(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        trapped.append(await reader.read(100))
        writer.close()

    elsewhere = await asyncio.start_server(trap, "127.0.0.1", 0)
    port = elsewhere.sockets[0].getsockname()[1]
    try:
        with patch.object(rare, "ABORT_PAUSE", 0.0):
            async with scripted(lambda request: _lie(request, draw, port)) as server:
                store = server.store()
                for number in range(count):
                    name = draw.choice(list(VERBS))
                    where = f"{name}, number {number} of seed {seed}"
                    await _ask(VERBS[name], store, where, told)
                    if trapped:
                        raise Broken(f"a store was followed to another host: {where}: {trapped}")
                told["requests to stores that lie"] += len(server.requests)
    finally:
        elsewhere.close()
        await elsewhere.wait_closed()
    return told


async def _ask(verb: Verb, store: S3Store, where: str, told: Counter[str]) -> None:
    try:
        async with asyncio.timeout(HANG):
            answer = await verb(store)
    except TimeoutError:
        raise Broken(f"a store that lies is waited for without end: {where}") from None
    except S3flowError as error:
        _judge_words(error, where)
        told["lies refused"] += 1
        return
    except Exception as error:
        raise Broken(f"no error of ours came of a lie: {where}: {error!r}") from error
    told["lies that were answers"] += 1
    if isinstance(answer, ObjectInfo) and answer.size < 0:
        raise Broken(f"a size below nothing: {where}")
    for each in answer if isinstance(answer, list) else ():
        if isinstance(each, BaseException):
            if not isinstance(each, S3flowError):
                raise Broken(f"no error of ours came of a lie: {where}: {each!r}") from each
            _judge_words(each, where)


def _judge_words(error: S3flowError, where: str) -> None:
    said = str(error)
    if SECRET in said or ACCESS in said:
        raise Broken(f"an error tells a secret: {where}: {said!r}")
    if not error.reason or not said:
        raise Broken(f"an error gives no reason: {where}: {error!r}")
    if any(not char.isprintable() for char in said):
        raise Broken(f"an error would act on a terminal: {where}: {said!r}")

"""S3's XML: read as botocore reads it, and nothing that only pretends to be S3's."""

from __future__ import annotations

import datetime
from urllib.parse import quote, quote_plus
from xml.sax.saxutils import escape

import botocore.session
import pytest
from botocore.handlers import decode_list_object_v2
from botocore.parsers import create_parser
from hypothesis import given, settings
from hypothesis import strategies as st

from s3flow.errors import BadAnswer
from s3flow.wire.entries import cut_out
from s3flow.wire.xml import ListResult, parse_document, parse_error, parse_list

NAMESPACE = ' xmlns="http://s3.amazonaws.com/doc/2006-03-01/"'
MODEL = botocore.session.Session().get_service_model("s3").operation_model("ListObjectsV2")
PARSER = create_parser("rest-xml")

# XML 1.0 cannot carry control characters; url encoding can, so those keys appear encoded only.
texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)


def listing(
    *contents: str, namespace: str = NAMESPACE, encoding: str = "url", more: str = ""
) -> bytes:
    kind = f"<EncodingType>{encoding}</EncodingType>" if encoding else ""
    body = "".join(f"<Contents>{content}</Contents>" for content in contents)
    return (
        f'<?xml version="1.0" encoding="UTF-8"?>\n<ListBucketResult{namespace}>'
        f"<Name>b</Name>{kind}{more}{body}</ListBucketResult>"
    ).encode()


def content(
    key: str, size: object = 1, modified: str = "2024-02-29T23:59:59.123Z", extra: str = ""
) -> str:
    return (
        f"<Key>{escape(key)}</Key><LastModified>{modified}</LastModified>"
        f"<ETag>&quot;abc-2&quot;</ETag><Size>{size}</Size>{extra}"
    )


def by_botocore(body: bytes) -> ListResult:
    response = {"status_code": 200, "headers": {}, "body": body}
    parsed = PARSER.parse(response, MODEL.output_shape)
    # botocore decodes only what it asked to be encoded
    decode_list_object_v2(parsed, {"encoding_type_auto_set": True})
    rows = [
        (
            entry["Key"].encode(),
            entry["Size"],
            entry["ETag"].strip('"'),
            round(entry["LastModified"].timestamp() * 1000),
            entry.get("StorageClass", "STANDARD"),
        )
        for entry in parsed.get("Contents", [])
    ]
    token = parsed.get("NextContinuationToken", "")
    return ListResult(rows, parsed["IsTruncated"], token)


@settings(max_examples=150, deadline=None)
@given(
    keys=st.lists(texts, max_size=6),
    plus=st.booleans(),
    size=st.integers(0, 10**13),
    millis=st.integers(0, 4_000_000_000_000),
    truncated=st.booleans(),
    namespace=st.sampled_from(["", NAMESPACE]),
)
def test_listings_equal_botocores(
    keys: list[str], plus: bool, size: int, millis: int, truncated: bool, namespace: str
) -> None:
    moment = datetime.datetime.fromtimestamp(millis / 1000, datetime.UTC)
    modified = f"{moment:%Y-%m-%dT%H:%M:%S}.{millis % 1000:03d}Z"
    encode = quote_plus if plus else quote
    extra = "<StorageClass>GLACIER</StorageClass><Owner><ID>x</ID></Owner>" if plus else ""
    more = f"<IsTruncated>{'true' if truncated else 'false'}</IsTruncated>"
    more += "<NextContinuationToken>a/b+c=</NextContinuationToken>" if truncated else ""
    body = listing(
        *(content(encode(key), size, modified, extra) for key in keys),
        namespace=namespace,
        more=more,
    )
    result = parse_list(body)
    assert [tuple(entry) for entry in result.entries] == by_botocore(body).entries
    assert result[1:] == by_botocore(body)[1:]
    assert [entry.key for entry in result.entries] == [key.encode() for key in keys]


odd = st.text(st.sampled_from("ab/+ %&<>\"'\n\x01é中]2-"), max_size=6)
elements = st.lists(
    st.sampled_from(
        [
            "<Key>k%20+%0A</Key>",
            "<Key></Key>",
            "<Key>é</Key>",
            "<Size>007</Size>",
            "<Size> 1</Size>",
            "<Size></Size>",
            '<ETag>"a"</ETag>',
            '<ETag>""b</ETag>',
            "<ETag/>",
            "<ETag>a&amp;</ETag>",
            "<LastModified>2024-02-29T23:59:59Z</LastModified>",
            "<LastModified>2024-02-29T23:59:59</LastModified>",
            "<LastModified>2024-02-29T23:59:59.5+01:00</LastModified>",
            "<LastModified>Z2024</LastModified>",
            "<StorageClass>GLACIER</StorageClass>",
            "<StorageClass></StorageClass>",
            "<Owner><ID>x</ID> <DisplayName>y</DisplayName></Owner>",
            "<ChecksumAlgorithm>CRC64NVME</ChecksumAlgorithm>",
            "<Other><Key>inner</Key></Other>",
            "<!-- <Key>hidden</Key> -->",
            "<![CDATA[x]]>",
            " ",
            "\n",
            "text",
        ]
    ),
    max_size=7,
)
usual = st.tuples(odd, odd, st.integers(0, 10**15)).map(
    lambda it: content(
        quote(it[0]) or "k", it[2], extra=f"<StorageClass>{escape(it[1])}</StorageClass>"
    )
)


@settings(max_examples=300, deadline=None)
@given(
    contents=st.lists(usual | elements.map("".join), max_size=4),
    encoding=st.sampled_from(["url", ""]),
    between=st.sampled_from(["", "\n  ", "<x/>", "text", "<Contents/>", "</Contents>", "<y>"]),
    wrap=st.booleans(),
)
def test_entries_are_the_same_whether_by_their_shape_or_by_a_tree(
    contents: list[str], encoding: str, between: str, wrap: bool
) -> None:
    def read(body: bytes) -> ListResult | None:
        try:
            return parse_list(body)
        except BadAnswer:
            return None

    body = listing(*contents, encoding=encoding).replace(
        b"</Contents>", b"</Contents>" + between.encode()
    )
    if wrap and contents:
        first, _, rest = body.partition(b"<Contents>")
        body = first + b"<w><Contents>" + rest.replace(b"</List", b"</w></List")
    # A comment is what the shape does not know.
    assert read(body) == read(body.replace(b"<Name>", b"<!-- --><Name>"))


def test_entries_in_the_usual_shape_need_no_tree() -> None:
    usual = content("k%20", extra="<StorageClass>GLACIER</StorageClass>")
    aws = content("k").replace("<Size>", "<ChecksumType>FULL_OBJECT</ChecksumType><Size>")
    for text in (usual, content("k"), aws, content("k", extra="<Owner><ID>x</ID></Owner>")):
        assert cut_out(listing(text, text.replace("><", ">\n  <"))) is not None


@pytest.mark.parametrize(
    ("encoded", "key"),
    [
        ("a+b.txt", b"a b.txt"),  # AWS: a space
        ("a%20b.txt", b"a b.txt"),  # moto, ministack, RGW: a space
        ("a%2Bb.txt", b"a+b.txt"),
        ("100%2525.csv", b"100%25.csv"),  # once, not twice
        ("a%01%0D%0Ab", b"a\x01\r\nb"),
        ("%FF%FE", b"\xff\xfe"),  # not UTF-8: bytes all the same
        ("%ed%95%9c/x", "한/x".encode()),
        ("한/%2B", "한/+".encode()),
    ],
)
def test_keys_are_decoded_exactly_once(encoded: str, key: bytes) -> None:
    assert parse_list(listing(content(encoded))).entries[0].key == key


def test_a_store_that_ignores_the_encoding_has_its_keys_taken_as_they_are() -> None:
    raw = listing(content("a+b%20&c"), encoding="")
    assert parse_list(raw).entries[0].key == b"a+b%20&c"


def test_an_empty_page_and_what_may_be_missing() -> None:
    assert parse_list(listing()) == ListResult([], False, "")
    bare = "<Key>k</Key><LastModified>2024-01-01T00:00:00Z</LastModified><Size>0</Size>"
    (entry,) = parse_list(listing(bare)).entries
    assert entry == (b"k", 0, "", 1_704_067_200_000, "STANDARD")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<",
        b"not xml",
        b"<html>gateway</html>",
        b'{"json": true}',
        listing(content("k"))[:-5],
        listing(content("k")) + b"<more/>",
        listing(content("k", size="")),
        listing(content("k", size="-1")),
        listing(content("k", size="1_0")),
        listing(content("")),
        listing(content("k", modified="yesterday")),
        listing(content("k", modified="")),
        listing("<Size>1</Size>"),
        b"<Error><Code>SlowDown</Code></Error>",
        listing(content("k").replace("k", "&#1;")),
        listing(content("k").replace("k", "&undefined;")),
        listing(content("k")).decode().encode("utf-16"),
    ],
)
def test_what_is_no_listing_is_refused(body: bytes) -> None:
    with pytest.raises(BadAnswer):
        parse_list(body)


BOMB = b"".join(
    [
        b'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "ha">',
        *(b'<!ENTITY %c "&%c;&%c;&%c;&%c;">' % (n, n - 1, n - 1, n - 1, n - 1) for n in b"bcdefgh"),
        b"]><ListBucketResult><EncodingType>&h;</EncodingType></ListBucketResult>",
    ]
)


@pytest.mark.parametrize(
    "body",
    [
        BOMB,
        BOMB.replace(b"ListBucketResult", b"Error"),
        b'<!DOCTYPE x SYSTEM "file:///etc/hostname"><ListBucketResult/>',
        b'<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/hostname">]><Error><Code>&e;</Code></Error>',
    ],
)
def test_document_types_are_refused_before_anything_is_expanded(body: bytes) -> None:
    with pytest.raises(BadAnswer, match="document type"):
        parse_list(body)
    if b"<Error" in body:
        with pytest.raises(BadAnswer, match="document type"):
            parse_error(body)


def test_a_document_type_cannot_hide_in_another_encoding() -> None:
    hidden = (
        '<?xml version="1.0" encoding="UTF-16"?><!DOCTYPE x [<!ENTITY e "url">]>'
        "<ListBucketResult><EncodingType>&e;</EncodingType></ListBucketResult>"
    )
    for encoding in ("utf-16", "utf-16-le", "utf-16-be", "utf-32"):
        with pytest.raises(BadAnswer):
            parse_list(hidden.encode(encoding))
    utf7 = hidden.replace("UTF-16", "UTF-7").replace("<!", "+ADwAIQ-").encode()
    with pytest.raises(BadAnswer):
        parse_list(utf7)


@pytest.mark.parametrize("namespace", ["", NAMESPACE])
def test_errors_are_read_with_all_their_fields(namespace: str) -> None:
    body = (
        f"<?xml version='1.0'?>\n<Error{namespace}><Code>PermanentRedirect</Code>"
        "<Message>use &lt;that&gt;</Message><Endpoint>b.s3.eu-west-1.amazonaws.com</Endpoint>"
        "<BucketName>b</BucketName><Region/></Error>"
    ).encode()
    error = parse_error(body)
    assert error is not None
    assert (error.code, error.message) == ("PermanentRedirect", "use <that>")
    assert error.fields == {
        "Endpoint": "b.s3.eu-west-1.amazonaws.com",
        "BucketName": "b",
        "Region": "",
    }


def test_wrapped_errors_are_read_too() -> None:
    error = parse_error(b"<ErrorResponse><Error><Code>SlowDown</Code></Error></ErrorResponse>")
    assert error is not None
    assert error.code == "SlowDown"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<!DOCTYPE html><html><body>502 Bad Gateway</body></html>",
        b"<html><body>Error",
        b"<CopyObjectResult><ETag>x</ETag></CopyObjectResult>",
        b"<Errors><Error/></Errors>",
        b"plain text",
    ],
)
def test_what_is_no_error_document_is_none(body: bytes) -> None:
    assert parse_error(body) is None


def test_an_error_document_that_breaks_off_is_not_taken_for_none() -> None:
    with pytest.raises(BadAnswer):
        parse_error(b"<?xml version='1.0'?><Error><Code>Interna")


@given(st.binary(max_size=200))
def test_arbitrary_bytes_never_raise_anything_else(body: bytes) -> None:
    for data in (body, b"<Error>" + body, b"<ListBucketResult>" + body):
        for parse in (parse_list, parse_error):
            try:
                parse(data)
            except BadAnswer:
                continue


def test_a_listing_of_blanks_is_read_at_once() -> None:
    # Megabytes of them: in quadratic time this takes an hour.
    blanks = " " * 4_000_000
    odd = content("a").replace("</Key>", f"</Key>{blanks}<Odd/>")
    more = "<IsTruncated>false</IsTruncated>"
    (entry,) = parse_list(listing(odd, more=more)).entries
    assert entry.key == b"a"


@pytest.mark.parametrize("extra", ["", "<Odd/>"])  # by the usual shape, and by the XML parser
@pytest.mark.parametrize("size", ["9223372036854775808", "9" * 16, "9" * 5000, "-1", "1.5", "٣"])
def test_a_size_that_no_object_has_is_a_bad_answer(size: str, extra: str) -> None:
    with pytest.raises(BadAnswer, match="cannot be read"):
        parse_list(listing(content("a", size, extra=extra)))


@pytest.mark.parametrize("text", ["9" * 19, "9" * 5000, "-1", "1.5", "٣"])
def test_a_number_that_nothing_has_is_a_bad_answer(text: str) -> None:
    document = parse_document(f"<P><Size>{text}</Size></P>".encode(), "P")
    with pytest.raises(BadAnswer, match="where a number belongs"):
        document.number("Size")


def test_numbers_are_read() -> None:
    document = parse_document(b"<P><Size>999999999999999999</Size><Empty/></P>", "P")
    assert document.number("Size") == 10**18 - 1
    assert document.number("Empty") == document.number("None") == 0

"""Signatures: equal to botocore's for anything S3 takes, and to the vectors AWS published."""

from __future__ import annotations

import datetime
import hashlib
import hmac
from unittest import mock
from urllib.parse import quote

from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials as BotocoreCredentials
from hypothesis import given, settings
from hypothesis import strategies as st

from s3flow.wire.sigv4 import Credentials, Signer, canonical_query, quote_key, quote_value

# https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html
PUBLISHED = Credentials("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")
HOST = "examplebucket.s3.amazonaws.com"
MOMENT = datetime.datetime(2013, 5, 24, tzinfo=datetime.UTC).timestamp()
EMPTY = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

names = st.from_regex(r"x-amz-(meta-)?[a-z0-9-]{1,12}", fullmatch=True).filter(
    lambda name: name not in ("x-amz-date", "x-amz-content-sha256", "x-amz-security-token")
)
# ASCII: botocore hashes other characters as UTF-8 and then refuses to send them; we send latin-1.
values = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=30)
params = st.lists(
    st.tuples(st.text("abz-", min_size=1, max_size=6), st.text(max_size=8)),
    max_size=5,
    unique_by=lambda pair: pair[0],
)
keys = st.binary(max_size=40).map(lambda key: key or b"k")


def signature(headers: dict[str, str]) -> str:
    return headers["authorization"].rpartition("Signature=")[2]


def signed_by_botocore(
    credentials: Credentials, method: str, url: str, headers: dict[str, str], moment: float
) -> str:
    request = AWSRequest(method=method, url=url, headers=headers)
    request.context["payload_signing_enabled"] = False
    auth = S3SigV4Auth(BotocoreCredentials(*credentials), "s3", "eu-west-3")
    now = datetime.datetime.fromtimestamp(moment, datetime.UTC).replace(tzinfo=None)
    with (
        mock.patch("botocore.auth.get_current_datetime", return_value=now),
        mock.patch.object(auth, "payload", return_value="UNSIGNED-PAYLOAD"),
    ):
        auth.add_auth(request)
    return str(request.headers["Authorization"])


@settings(max_examples=400, deadline=None)
@given(
    method=st.sampled_from(["GET", "PUT", "HEAD", "DELETE", "POST"]),
    key=keys,
    query=params,
    extra=st.dictionaries(names, values, max_size=6),
    token=st.sampled_from(["", "a/token+with=signs"]),
    moment=st.integers(0, 4_000_000_000),
)
def test_signatures_equal_botocores(
    method: str,
    key: bytes,
    query: list[tuple[str, str]],
    extra: dict[str, str],
    token: str,
    moment: int,
) -> None:
    credentials = Credentials("AKID", "secret/+=", token)
    path, line = f"/{quote_key(key)}", canonical_query(query)
    base = {"host": "b.s3.eu-west-3.amazonaws.com", "User-Agent": "s3flow", **extra}
    url = f"https://b.s3.eu-west-3.amazonaws.com{path}" + (f"?{line}" if line else "")
    expected = signed_by_botocore(credentials, method, url, dict(base), moment)
    headers = dict(base)
    Signer("eu-west-3").sign(credentials, method, path, line, headers, now=moment)
    assert headers["authorization"] == expected


def test_the_published_get_with_a_range() -> None:
    headers = {"host": HOST, "range": "bytes=0-9"}
    signer = Signer("us-east-1")
    signer.sign(PUBLISHED, "GET", "/test.txt", "", headers, payload=EMPTY, now=MOMENT)
    assert signature(headers) == "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41"


def test_the_published_put_with_a_dollar_in_the_key() -> None:
    digest = "44ce7dd67c959e0d3524ffac1771dfbba87d2b6b4b4e99e42034a8b803f8b072"
    headers = {
        "host": HOST,
        "Date": "Fri, 24 May 2013 00:00:00 GMT",
        "x-amz-storage-class": "REDUCED_REDUNDANCY",
    }
    path = f"/{quote_key(b'test$file.text')}"
    Signer("us-east-1").sign(PUBLISHED, "PUT", path, "", headers, payload=digest, now=MOMENT)
    assert path == "/test%24file.text"
    assert signature(headers) == "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd"


def test_the_published_sub_resource_and_listing() -> None:
    signer = Signer("us-east-1")
    headers = {"host": HOST}
    query = canonical_query([("lifecycle", "")])
    signer.sign(PUBLISHED, "GET", "/", query, headers, payload=EMPTY, now=MOMENT)
    assert signature(headers) == "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543"
    headers = {"host": HOST}
    query = canonical_query([("prefix", "J"), ("max-keys", "2")])
    signer.sign(PUBLISHED, "GET", "/", query, headers, payload=EMPTY, now=MOMENT)
    assert signature(headers) == "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7"


def test_a_new_day_and_new_credentials_change_the_key() -> None:
    signer = Signer("us-east-1")
    seen = set()
    for credentials, moment in [
        (PUBLISHED, MOMENT),
        (PUBLISHED, MOMENT + 86_400),
        (PUBLISHED._replace(secret_key="other"), MOMENT + 86_400),
        (PUBLISHED._replace(token="session"), MOMENT + 86_400),
    ]:
        headers = {"host": HOST}
        signer.sign(credentials, "GET", "/", "", headers, now=moment)
        fresh = {"host": HOST}
        Signer("us-east-1").sign(credentials, "GET", "/", "", fresh, now=moment)
        assert headers == fresh
        seen.add(headers["authorization"])
    assert len(seen) == 4


def test_many_header_sets_are_signed_with_bounded_memory() -> None:
    signer = Signer("us-east-1")
    for number in range(3000):
        signer.sign(PUBLISHED, "GET", "/", "", {"host": HOST, f"x-amz-meta-{number}": "v"}, now=1)
    assert len(signer._shapes) <= 1024


def test_credentials_do_not_show_their_secrets() -> None:
    shown = repr(Credentials("AKID", "the-secret", "the-token"))
    assert "AKID" in shown
    assert "the-secret" not in shown
    assert "the-token" not in shown


@given(st.binary(max_size=60))
def test_keys_are_encoded_byte_for_byte(key: bytes) -> None:
    assert quote_key(key) == quote(key, safe="/-_.~")


def test_values_and_queries_are_encoded() -> None:
    assert quote_value("a b/c+~é") == "a%20b%2Fc%2B~%C3%A9"
    assert quote_value(b"\xff/") == "%FF%2F"
    assert canonical_query([("b", "2"), ("a-", ""), ("a", "x y")]) == "a=x%20y&a-=&b=2"


def test_bytes_beyond_ascii_are_hashed_as_they_are_sent() -> None:
    # What a server hashes is what arrives: the bytes of "é" in UTF-8, here as two latin-1 characters.
    value = "caf\u00e9 \u00a0x".encode().decode("latin-1")
    headers = {"host": HOST, "x-amz-meta-n": value}
    Signer("us-east-1").sign(PUBLISHED, "GET", "/k", "", headers, now=MOMENT)
    canonical = (
        f"GET\n/k\n\nhost:{HOST}\nx-amz-content-sha256:UNSIGNED-PAYLOAD\n"
        f"x-amz-date:20130524T000000Z\nx-amz-meta-n:{value}\n\n"
        "host;x-amz-content-sha256;x-amz-date;x-amz-meta-n\nUNSIGNED-PAYLOAD"
    )
    scope = "20130524/us-east-1/s3/aws4_request"
    digest = hashlib.sha256(canonical.encode("latin-1")).hexdigest()
    key = f"AWS4{PUBLISHED.secret_key}".encode()
    for step in (*scope.split("/"), f"AWS4-HMAC-SHA256\n20130524T000000Z\n{scope}\n{digest}"):
        key = hmac.digest(key, step.encode(), "sha256")
    assert signature(headers) == key.hex()

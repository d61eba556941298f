"""Headers of objects: what travels, what is understood, what is left behind."""

from __future__ import annotations

import pytest

from s3flow.model import Attributes, Restored
from s3flow.stores.s3.headers import (
    TOKEN_HEADER,
    full_checksums,
    http_date_ms,
    note_archive,
    object_info,
    restored,
    unquote_etag,
    write_headers,
)


def attributes(**changes: object) -> Attributes:
    values: dict[str, object] = {
        "headers": {},
        "tags": {},
        "storage_class": "STANDARD",
        "modified": 0,
        "token": "our-token",
    }
    return Attributes(**{**values, **changes})  # type: ignore[arg-type]


def test_an_answers_headers_become_what_travels_and_what_is_known() -> None:
    info = object_info(
        {
            "etag": '"abc"',
            "last-modified": "Wed, 21 Oct 2015 07:28:00 GMT",
            "content-type": "text/plain",
            "content-length": "5",
            "server": "x",
            "expires": "never, really",
            "x-amz-meta-colour": "=?UTF-8?B?YmzDvA==?=",
            "x-amz-storage-class": "GLACIER_IR",
            "x-amz-version-id": "v1",
            "x-amz-tagging-count": "3",
            "x-amz-mp-parts-count": "7",
            "x-amz-missing-meta": "2",
            "x-amz-server-side-encryption": "aws:kms",
            "x-amz-checksum-crc64nvme": "AAAAAAAAAAA=",
            "x-amz-checksum-type": "FULL_OBJECT",
        },
        5,
    )
    assert info.headers == {
        "content-type": "text/plain",
        "expires": "never, really",
        "x-amz-meta-colour": "=?UTF-8?B?YmzDvA==?=",
    }
    assert (info.size, info.etag, info.modified) == (5, "abc", 1445412480000)
    assert (info.storage_class, info.version_id, info.encryption) == ("GLACIER_IR", "v1", "aws:kms")
    assert (info.tag_count, info.parts_count, info.missing_metadata) == (3, 7, 2)
    assert info.checksums == {"crc64nvme": "AAAAAAAAAAA="}


def test_a_customer_key_is_told_apart_from_kms() -> None:
    headers = {"x-amz-server-side-encryption-customer-algorithm": "AES256"}
    assert object_info(headers, 0).encryption == "customer"


def test_composite_and_partial_checksums_prove_nothing_about_the_object() -> None:
    assert full_checksums({"x-amz-checksum-sha256": "c3Vt-3"}) == {}
    composite = {"x-amz-checksum-crc32": "AAAAAA==", "x-amz-checksum-type": "COMPOSITE"}
    assert full_checksums(composite) == {}
    assert object_info({"x-amz-checksum-crc32": "AAAAAA=="}, 1, is_whole=False).checksums == {}
    assert object_info({"x-amz-checksum-crc32": "AAAAAA=="}, 1).checksums == {"crc32": "AAAAAA=="}


def test_writes_carry_headers_as_they_came_and_tags_encoded() -> None:
    sent = write_headers(
        attributes(
            headers={"x-amz-meta-raw": "\xc3\xa9", "content-type": "a/b"},
            tags={"a b": "c&d=é", "empty": ""},
            storage_class="STANDARD_IA",
        )
    )
    assert sent == {
        "x-amz-meta-raw": "\xc3\xa9",
        "content-type": "a/b",
        "x-amz-tagging": "a%20b=c%26d%3D%C3%A9&empty=",
        "x-amz-storage-class": "STANDARD_IA",
    }


def test_the_token_of_an_earlier_transfer_is_not_passed_on() -> None:
    stale = attributes(headers={TOKEN_HEADER: "stale"})
    assert write_headers(stale) == {}
    assert write_headers(stale, with_token=True) == {TOKEN_HEADER: "our-token"}


@pytest.mark.parametrize("storage_class", ["", "STANDARD"])
def test_the_usual_storage_class_needs_no_header(storage_class: str) -> None:
    assert write_headers(attributes(storage_class=storage_class)) == {}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Thu, 01 Jan 1970 00:00:01 GMT", 1000),
        ("Thu, 29 Feb 2024 23:59:59 GMT", 1709251199000),
        ("Thu, 29 Feb 2024 23:59:59 +0000", 1709251199000),
        ("Thu, 99 Foo 2024 23:59:59 GMT", 0),
        ("Sun, 99999999999999999999 Jan 2020 00:00:00 GMT", 0),
        ("nonsense", 0),
        ("", 0),
    ],
)
def test_http_dates_are_read_or_are_unknown(text: str, expected: int) -> None:
    assert http_date_ms(text) == expected


@pytest.mark.parametrize(("etag", "bare"), [('"a"', "a"), ("a", "a"), ("", ""), ('"', '"')])
def test_etags_lose_their_quotes(etag: str, bare: str) -> None:
    assert unquote_etag(etag) == bare


def test_counts_of_thousands_of_digits_are_no_counts() -> None:
    info = object_info({"x-amz-mp-parts-count": "9" * 5000, "x-amz-tagging-count": "9" * 5000}, 1)
    assert (info.parts_count, info.tag_count) == (None, 0)


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ('ongoing-request="true"', Restored(ongoing=True)),
        (
            'ongoing-request="false", expiry-date="Fri, 21 Dec 2012 00:00:00 GMT"',
            Restored(ongoing=False, expiry=1_356_048_000_000),
        ),
        ('expiry-date="soon",ongoing-request="false"', Restored(ongoing=False)),
        ("", None),
        ('ongoing-request="maybe"', None),
        ("ongoing-request=true", None),
    ],
)
def test_what_is_said_of_a_restore(said: str, expected: Restored | None) -> None:
    assert restored(said) == expected


@pytest.mark.parametrize(
    ("headers", "is_frozen"),
    [
        ({}, False),
        ({"x-amz-storage-class": "GLACIER_IR"}, False),
        ({"x-amz-storage-class": "GLACIER"}, True),
        ({"x-amz-storage-class": "GLACIER", "x-amz-restore": 'ongoing-request="true"'}, True),
        ({"x-amz-storage-class": "GLACIER", "x-amz-restore": 'ongoing-request="false"'}, False),
        ({"x-amz-storage-class": "DEEP_ARCHIVE", "x-amz-restore": "nonsense"}, True),
        ({"x-amz-storage-class": "INTELLIGENT_TIERING"}, False),
        (
            {
                "x-amz-storage-class": "INTELLIGENT_TIERING",
                "x-amz-archive-status": "ARCHIVE_ACCESS",
            },
            True,
        ),
    ],
)
def test_what_head_says_decides_what_is_frozen(headers: dict[str, str], is_frozen: bool) -> None:
    info = object_info(headers, 1)
    note_archive(info, headers)
    assert info.is_frozen is is_frozen

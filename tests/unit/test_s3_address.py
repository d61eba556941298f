"""Hosts, paths and regions."""

from __future__ import annotations

import pytest

from s3flow.errors import ConfigError
from s3flow.stores.s3.address import AddressBook, checked_region, region_of_endpoint
from s3flow.stores.s3.settings import S3Settings


def find(bucket: str, region: str = "eu-west-1", **settings: object) -> tuple[str, str, str]:
    book = AddressBook(S3Settings("src", **settings))  # type: ignore[arg-type]
    address = book.find(bucket, region)
    return f"{address.origin.scheme}://{address.origin.authority}", address.path, address.bare


def test_aws_gets_virtual_hosts_where_the_name_allows_it() -> None:
    assert find("my-bucket") == ("https://my-bucket.s3.eu-west-1.amazonaws.com", "/", "/")
    for awkward in ("my.bucket", "My-Bucket", "my_bucket"):
        host, path, bare = find(awkward)
        assert (host, path, bare) == (
            "https://s3.eu-west-1.amazonaws.com",
            f"/{awkward}/",
            f"/{awkward}",
        )


def test_the_addressing_can_be_chosen() -> None:
    assert find("b-1", addressing="path")[0] == "https://s3.eu-west-1.amazonaws.com"
    here = {"url": "http://s3.example.org:9000"}
    assert find("b-1", **here) == ("http://s3.example.org:9000", "/b-1/", "/b-1")
    assert find("b-1", **here, addressing="virtual") == (
        "http://b-1.s3.example.org:9000",
        "/",
        "/",
    )


def test_a_base_path_stays_before_the_bucket() -> None:
    assert find("b", url="https://host/s3/") == ("https://host", "/s3/b/", "/s3/b")


@pytest.mark.parametrize(
    ("region", "domain"),
    [
        ("cn-north-1", "amazonaws.com.cn"),
        ("us-gov-west-1", "amazonaws.com"),
        ("us-iso-east-1", "c2s.ic.gov"),
        ("us-isob-east-1", "sc2s.sgov.gov"),
    ],
)
def test_partitions_have_their_own_domains(region: str, domain: str) -> None:
    assert find("b-1", region)[0] == f"https://b-1.s3.{region}.{domain}"


@pytest.mark.parametrize("url", ["s3.example.org", "ftp://h", "http://h:99999", "http://h:0"])
def test_an_unusable_url_is_a_configuration_error(url: str) -> None:
    with pytest.raises(ConfigError, match=r"endpoints\.src\.url"):
        find("b", url=url)


def test_a_password_in_the_url_is_refused_and_not_shown() -> None:
    with pytest.raises(ConfigError) as caught:
        find("b", url="http://me:hunter2@h")
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("text", ["evil.example/", "a b", "", "x", "EU", "a" * 60, "eu-west-1\n"])
def test_only_names_of_regions_become_part_of_a_host(text: str) -> None:
    assert checked_region(text) is None


@pytest.mark.parametrize(
    ("host", "region"),
    [
        ("b.s3.eu-west-1.amazonaws.com", "eu-west-1"),
        ("b.s3-us-west-2.amazonaws.com", "us-west-2"),
        ("s3.dualstack.eu-north-1.amazonaws.com", "eu-north-1"),
        ("s3.cn-north-1.amazonaws.com.cn", "cn-north-1"),
        ("s3.eu-west-1.amazonaws.com.evil.example", None),
        ("s3.amazonaws.com", None),
        ("", None),
    ],
)
def test_redirects_name_regions_in_hosts(host: str, region: str | None) -> None:
    assert region_of_endpoint(host) == region


def test_settings_do_not_show_secrets() -> None:
    shown = repr(S3Settings("src", access_key_id="AK", secret_access_key="SK", session_token="ST"))
    assert "src" in shown
    assert not any(secret in shown for secret in ("'AK'", "'SK'", "'ST'"))

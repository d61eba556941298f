"""Which host, path and region a bucket's requests go to."""

from __future__ import annotations

import re
from typing import NamedTuple
from urllib.parse import urlsplit

from s3flow.errors import ConfigError
from s3flow.stores.s3.settings import S3Settings
from s3flow.wire import Origin

# Regions come from answers and become part of a host name: nothing else may pass.
_REGION = re.compile(r"[a-z0-9][a-z0-9-]{0,38}[a-z0-9]")
# Virtual hosts need a DNS label; a dot would not match AWS's wildcard certificate.
_LABEL = re.compile(r"[a-z0-9][a-z0-9-]{1,61}[a-z0-9]")
_ENDPOINT = re.compile(r"(?:^|[.])s3[.-](?:dualstack[.])?([a-z0-9-]+)[.]amazonaws[.]com(?:[.]cn)?$")
_DOMAINS = (
    ("cn-", "amazonaws.com.cn"),
    ("eusc-", "amazonaws.eu"),
    ("us-isob-", "sc2s.sgov.gov"),
    ("us-isof-", "csp.hci.ic.gov"),
    ("us-iso-", "c2s.ic.gov"),
    ("eu-isoe-", "cloud.adc-e.uk"),
)


class Address(NamedTuple):
    """Where a bucket is: *path* precedes the key and ends in "/", *bare* is the bucket's own."""

    origin: Origin
    path: str
    bare: str


class AddressBook:
    """Finds buckets by the settings of one endpoint."""

    def __init__(self, settings: S3Settings) -> None:
        self._addressing = settings.addressing
        self._base = None if settings.url is None else _parse(settings.name, settings.url)

    def find(self, bucket: str, region: str) -> Address:
        """Say where *bucket* of *region* is; the bucket "" is the service itself."""
        if self._base is None:
            origin, prefix = Origin("https", f"s3.{region}.{_domain(region)}", 443), "/"
            is_virtual = self._addressing != "path" and _LABEL.fullmatch(bucket) is not None
        else:
            origin, prefix = self._base
            is_virtual = self._addressing == "virtual" and bucket != ""
        if not bucket:
            return Address(origin, prefix, prefix)
        if is_virtual:
            origin = origin._replace(host=f"{bucket}.{origin.host}")
            return Address(origin, prefix, prefix)
        return Address(origin, f"{prefix}{bucket}/", f"{prefix}{bucket}")


def service_of(settings: S3Settings) -> str:
    """Name what answers at an endpoint: within one service, objects can be copied by name.

    All of AWS is one but for its partitions, which know nothing of each other.
    """
    if settings.url is None:
        return f"aws:{_partition(settings.region)}"
    origin, prefix = _parse(settings.name, settings.url)
    if settings.is_aws:
        return f"aws:{_partition(region_of_endpoint(origin.host) or settings.region)}"
    return f"{origin}{prefix}"


def _partition(region: str) -> str:
    return "us-gov" if region.startswith("us-gov-") else _domain(region)


def checked_region(text: str) -> str | None:
    """Give *text* back if it can be a region's name."""
    return text if _REGION.fullmatch(text) else None


def region_of_endpoint(host: str) -> str | None:
    """Read the region out of an AWS endpoint's host name, as redirects name it."""
    found = _ENDPOINT.search(host)
    return checked_region(found[1]) if found else None


def _domain(region: str) -> str:
    for prefix, domain in _DOMAINS:
        if region.startswith(prefix):
            return domain
    return "amazonaws.com"


def _parse(name: str, url: str) -> tuple[Origin, str]:
    parts = urlsplit(url)
    try:
        port = parts.port
    except ValueError:
        port = 0
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        raise ConfigError(f"endpoints.{name}.url must be like https://host:port")
    if parts.username or parts.query or parts.fragment:
        raise ConfigError(
            f"endpoints.{name}.url takes no user, query or fragment; "
            "credentials go to access_key_id and secret_access_key"
        )
    default = 443 if parts.scheme == "https" else 80
    return Origin(parts.scheme, parts.hostname, port or default), parts.path.rstrip("/") + "/"

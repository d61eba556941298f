"""What an S3 endpoint needs to be told before it is used."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

Addressing = Literal["auto", "virtual", "path"]
Checksums = Literal["auto", "when_required"]
# Who asks.
IDENTITY = (
    "access_key_id",
    "secret_access_key",
    "session_token",
    "profile",
    "role_arn",
    "external_id",
    "web_identity_token_file",
)
# What decides where copies work, but for secrets.
TOLD_APART = (
    "access_key_id",
    "profile",
    "role_arn",
    "web_identity_token_file",
    "expected_bucket_owner",
    "encryption",
    "kms_key_id",
    "requester_pays",
    "acl",
)


@dataclass(frozen=True)
class S3Settings:
    """One S3 endpoint. Without *url* it is AWS. Secrets do not show in its repr.

    *checksums*: "when_required" neither asks for nor announces checksums, for stores that stumble
    over headers that are younger than they are. *encryption* ("AES256", "aws:kms", "aws:kms:dsse";
    "": as the bucket says) and *acl* are for what is written; *customer_key* (SSE-C, base64 of 32
    bytes) for what is written and read. *concurrency* bounds the connections to one host
    that read, and those that stream bodies to it. Timeouts in seconds.
    """

    name: str
    url: str | None = None
    region: str = "us-east-1"
    addressing: Addressing = "auto"
    access_key_id: str | None = field(default=None, repr=False)
    secret_access_key: str | None = field(default=None, repr=False)
    session_token: str | None = field(default=None, repr=False)
    profile: str | None = None
    role_arn: str | None = None
    external_id: str | None = field(default=None, repr=False)
    web_identity_token_file: str | None = None
    ca_file: Path | None = None
    verify_tls: bool = True
    expected_bucket_owner: str | None = None
    requester_pays: bool = False
    encryption: str = ""
    kms_key_id: str | None = None
    bucket_key: bool = False
    customer_key: str | None = field(default=None, repr=False)
    acl: str | None = None
    acl_is_wish: bool = False  # where it may not be set, writes go without
    checksums: Checksums = "auto"
    concurrency: int = 256
    connect_timeout: float = 10.0
    progress_timeout: float = 30.0
    answer_timeout: float = 60.0

    @property
    def is_aws(self) -> bool:
        """Say whether AWS itself answers, which takes what other stores may not know."""
        return self.url is None or ".amazonaws.com" in self.url

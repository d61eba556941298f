"""Settings of who asks, who pays, and how what is written is encrypted: what cannot stand together."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from s3flow.app import store_settings
from s3flow.config import Settings, load
from s3flow.errors import ConfigError
from s3flow.stores.s3 import S3Settings
from s3flow.stores.s3.settings import IDENTITY

KEY = base64.b64encode(bytes(range(32))).decode()
ROLE = 'role_arn = "arn:aws:iam::123456789012:role/r"'
KEYS = 'access_key_id = "AK"\nsecret_access_key = "SK"'
TOKEN = 'web_identity_token_file = "/var/run/token"'


def written(folder: Path, *lines: str, **environ: str) -> Settings:
    file = folder / "config.toml"
    file.write_text("\n".join(['[endpoints.dst]\ntype = "s3"', *lines]))
    file.chmod(0o600)
    return load(file, environ)


@pytest.mark.parametrize(
    ("lines", "name"),
    [
        (['kms_key_id = "k"'], "kms_key_id"),
        (['kms_key_id = "k"', 'encryption = "AES256"'], "kms_key_id"),
        (["bucket_key = true"], "bucket_key"),
        (["bucket_key = true", 'encryption = "aws:kms:dsse"'], "bucket_key"),
        (['encryption = "rot13"'], "encryption"),
        (['acl = "everybody"'], "acl"),
        ([f'customer_key = "{KEY}"', 'encryption = "AES256"'], "customer_key"),
        (['customer_key = "c2hvcnQ="'], "customer_key"),
        (['customer_key = "no base64!"'], "customer_key"),
        ([f'customer_key = "{KEY}"', 'url = "http://10.1.2.3:9000"'], "customer_key"),
        ([TOKEN], "web_identity_token_file"),
        ([TOKEN, ROLE, KEYS], "web_identity_token_file"),
        ([TOKEN, ROLE, 'profile = "p"'], "web_identity_token_file"),
        ([TOKEN, ROLE, 'external_id = "x"'], "web_identity_token_file"),
    ],
)
def test_what_cannot_stand_together_is_refused_by_name(
    tmp_path: Path, lines: list[str], name: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        written(tmp_path, *lines)
    [line] = str(caught.value).splitlines()
    assert f"endpoints.dst.{name}: " in line
    assert KEY not in line


@pytest.mark.parametrize(
    "lines",
    [
        ['encryption = "aws:kms"', 'kms_key_id = "k"', "bucket_key = true"],
        ['encryption = "aws:kms:dsse"', 'kms_key_id = "k"'],
        [f'customer_key = "{KEY}"'],
        [f'customer_key = "{KEY}"', 'url = "https://s3.example.com"'],
        [f'customer_key = "{KEY}"', 'url = "http://127.0.0.1:9000"'],
        [TOKEN, ROLE],
        ['acl = "bucket-owner-full-control"', "requester_pays = true"],
    ],
)
def test_what_can_is_not(tmp_path: Path, lines: list[str]) -> None:
    assert written(tmp_path, *lines).warnings == ()


def test_all_of_it_reaches_the_store(tmp_path: Path) -> None:
    settings = written(
        tmp_path,
        'encryption = "aws:kms"',
        'kms_key_id = "k"',
        "bucket_key = true",
        "requester_pays = true",
        'acl = "private"',
        TOKEN,
        ROLE,
    )
    made = store_settings("dst", settings.endpoints["dst"], 8)
    assert isinstance(made, S3Settings)
    assert (made.encryption, made.kms_key_id, made.bucket_key) == ("aws:kms", "k", True)
    assert (made.requester_pays, made.acl) == (True, "private")
    assert made.web_identity_token_file == "/var/run/token"
    assert {name for name in IDENTITY if getattr(made, name)} == {
        "role_arn",
        "web_identity_token_file",
    }


def test_a_customer_s_key_is_a_secret(tmp_path: Path) -> None:
    settings = written(tmp_path, 'customer_key = "${SEAL}"', SEAL=KEY)
    assert KEY in settings.secrets()
    assert KEY not in repr(settings)
    made = store_settings("dst", settings.endpoints["dst"], 8)
    assert isinstance(made, S3Settings)
    assert made.customer_key == KEY
    assert KEY not in repr(made)

"""An account of five buckets in three regions onto a disk, as deploy/recipes/account-to-disk.toml says."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import tomllib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path

import pytest
from botocore.client import BaseClient

from tests.e2e.content import digests_of_folder
from tests.e2e.program import ROOT, Program, document
from tests.e2e.proxy import Proxy
from tests.servers import Server, moto

RECIPE = ROOT / "deploy" / "recipes" / "account-to-disk.toml"
BUCKETS = {
    "account-documents": "us-east-1",
    "account-invoices": "us-east-1",
    "account-photos": "eu-west-1",
    "account-logs": "ap-south-1",
    "account-empty": "eu-west-1",
}
OBJECTS = 2_000


class Account:
    """An account of its own on moto, behind a proxy that may close a bucket."""

    def __init__(self, server: Server, client: BaseClient, folder: Path) -> None:
        self.server, self.client, self.folder = server, client, folder
        self.closed = ""
        self.expected: dict[str, str] = {}
        self.disk = folder / "disk"
        self.disk.mkdir()

    def make(self, bucket: str, region: str) -> None:
        where = (
            {}
            if region == "us-east-1"
            else {"CreateBucketConfiguration": {"LocationConstraint": region}}
        )
        self.client.create_bucket(Bucket=bucket, **where)

    def put(self, bucket: str, key: str, **about: str) -> None:
        body = f"{bucket}/{key}".encode() * 3
        self.client.put_object(Bucket=bucket, Key=key, Body=body, **about)
        self.expected[f"{bucket}/{key}"] = sha256(body).hexdigest()

    def arrived(self) -> dict[str, str]:
        """Give the files on the disk and their digests."""
        found = digests_of_folder(self.disk)
        return {name: digest for name, digest in found.items() if not name.startswith(".s3flow")}

    def rewrite(self, head: bytes) -> bytes:
        """Let requests about the closed bucket arrive as ones that moto refuses."""
        if self.closed and f" /{self.closed}?".encode() in head.split(b"\r\n", 1)[0]:
            return head.replace(f" /{self.closed}?".encode(), b" /account-missing?", 1)
        return head

    def program(self, url: str, **flow: object) -> Program:
        """Configure s3flow by the recipe, with this account and disk in their places."""
        recipe = tomllib.loads(RECIPE.read_text())
        recipe["daemon"]["state"] = "sqlite:///state.db"
        recipe["endpoints"]["account"] |= {
            "url": url,
            "addressing": "path",
            "access_key_id": "${KEY}",
            "secret_access_key": "${SECRET}",
        }
        recipe["endpoints"]["disk"]["path"] = str(self.disk)
        recipe["flows"][0] |= flow
        text = document(recipe["daemon"], recipe["endpoints"], recipe["flows"])
        keys = {"KEY": self.server.access_key, "SECRET": self.server.secret_key}
        return Program.written(self.folder, text, keys)


@pytest.fixture
def account(tmp_path: Path) -> Iterator[Account]:
    with moto() as server, contextlib.closing(server.client()) as client:
        yield Account(server, client, tmp_path)


@pytest.fixture
def full(account: Account) -> Account:
    """Put 2,000 objects into four of the five buckets."""
    for bucket, region in BUCKETS.items():
        account.make(bucket, region)
    *taken, _ = BUCKETS
    with ThreadPoolExecutor(8) as pool:
        list(
            pool.map(
                lambda number: account.put(taken[number % 4], f"folder-{number % 7}/{number:04}"),
                range(OBJECTS),
            )
        )
    return account


def query(program: Program, statement: str) -> list[tuple[object, ...]]:
    with contextlib.closing(sqlite3.connect(program.folder / "state.db")) as db:
        return db.execute(statement).fetchall()


def test_an_account_goes_to_disk_and_new_buckets_follow(full: Account) -> None:
    program = full.program(full.server.url, mode="copy")
    program.run("scan")
    flow = program.status("--buckets")["account"]
    assert flow["objects"]["pending"] == OBJECTS
    assert flow["storage_classes"]["STANDARD"]["objects"] == OBJECTS
    assert {
        name: one["objects"]["pending"] for name, one in flow["buckets"].items()
    } == dict.fromkeys(sorted(BUCKETS.keys() - {"account-empty"}), OBJECTS // 4)
    assert full.arrived() == {}
    program.run("sync")
    assert full.arrived() == full.expected
    assert not (full.disk / "account-empty").exists()  # a bucket is its objects
    full.make("account-younger", "ap-south-1")
    full.put("account-younger", "late")
    program.run("sync")
    assert full.arrived() == full.expected
    counted = query(program, "SELECT state, COUNT(*) FROM files GROUP BY state;")
    assert counted == [("verified", OBJECTS + 1)]
    assert query(program, "SELECT * FROM files WHERE state = 'error';") == []


def test_a_bucket_that_refuses_stops_no_other_and_is_told_everywhere(account: Account) -> None:
    for bucket, region in BUCKETS.items():
        account.make(bucket, region)
        account.put(bucket, "one")
    del account.expected["account-photos/one"]
    account.closed = "account-photos"
    with Proxy(account.server.url, rewrite=account.rewrite) as proxy:
        program = account.program(proxy.url, mode="copy")
        done = program.run("sync", code=1)
        assert account.arrived() == account.expected
        assert "not listed: account-photos no_such_bucket" in done.out
        flow = program.flow()
        assert flow["unlisted_buckets"]["account-photos"]["reason"] == "no_such_bucket"
        assert flow["objects"]["verified"] == 4
        report = json.loads(program.run("report", "--json").out)["reports"][0]
        assert list(report["flows"][0]["unlisted_buckets"]) == ["account-photos"]
        account.closed = ""
        account.put("account-photos", "one")
        program.run("sync")
        assert program.flow()["unlisted_buckets"] == {}
    assert account.arrived() == account.expected


def test_one_bucket_is_listed_again_for_the_asking(account: Account) -> None:
    for bucket, region in BUCKETS.items():
        account.make(bucket, region)
        account.put(bucket, "one")
    with Proxy(account.server.url) as proxy:
        program = account.program(proxy.url, mode="copy")
        program.run("sync")
        said = program.run("rescan", "--flow", "account", "--bucket", "account-logs").out
        assert "account-logs is listed again by the next run or sync" in said
        account.put("account-logs", "two")
        asked = len(proxy.requests)
        program.run("sync")
        lists = [each.bucket for each in proxy.requests[asked:] if each.kind == "list"]
        assert [name for name in lists if name] == ["account-logs"]
        assert account.arrived() == account.expected

        running = program.start("run")
        running.until(lambda: any("scan finished" in str(it) for it in running.logged()))
        account.put("account-invoices", "two")
        said = program.run("rescan", "--bucket", "account-invoices").out
        assert said == "account: account-invoices is listed again by the daemon that runs\n"
        running.until(lambda: account.arrived() == account.expected)
        running.stop()
        running.wait()

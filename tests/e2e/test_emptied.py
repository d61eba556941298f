"""An account is emptied to disk, archives and all, and whatever goes wrong on the way loses no byte."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import sqlite3
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from xml.etree import ElementTree

import pytest
from botocore.client import BaseClient

from tests import servers
from tests.demo.compare import keys_of
from tests.e2e.conftest import MIB
from tests.e2e.program import Program, adds_up
from tests.e2e.proxy import Proxy
from tests.e2e.relaying import Request
from tests.e2e.test_account import Account, query
from tests.e2e.test_kill import settle
from tests.e2e.test_thaw import is_restore
from tests.e2e.test_trouble import small_disk

BUCKETS = {
    "emptied-documents": "us-east-1",
    "emptied-invoices": "us-east-1",
    "emptied-photos": "eu-west-1",
    "emptied-logs": "ap-south-1",
    "emptied-years": "ap-south-1",
}
CLASSES = ("STANDARD", "GLACIER", "STANDARD_IA", "STANDARD", "STANDARD", "DEEP_ARCHIVE")
READABLE = ("STANDARD", "STANDARD_IA")
OBJECTS = 2_000
FEW = 300
MOST = 40
THAW = 0.5  # seconds
S3 = "{http://s3.amazonaws.com/doc/2006-03-01/}"


@dataclass(slots=True)
class Witness:
    """Stands before the server, and looks at the state's file and at the disk before each delete."""

    account: Account
    restores: list[tuple[float, str]] = field(default_factory=list)
    deleted: set[str] = field(default_factory=set)
    wrong: list[str] = field(default_factory=list)  # what was to be deleted, and was not proven

    def __call__(self, request: Request) -> float:
        """Take note of a request; as the delay of a proxy it lets none wait."""
        if is_restore(request):
            self.restores.append((time.monotonic(), f"{request.bucket}/{request.key}"))
        asked = [one for one in doomed(request) if ".s3flow-probe" not in one[0]]
        if asked:
            proven = self.proven()
            for name, etag in asked:
                if proven.get(name) != etag:
                    self.wrong.append(f"{name} {etag}: the state says {proven.get(name)}")
                if self.on_disk(name) != self.account.expected[name]:
                    self.wrong.append(f"{name} {etag}: the disk has {self.on_disk(name)!r}")
                self.deleted.add(name)
        return 0.0

    def proven(self) -> dict[str, str]:
        """Read which rows say that they are verified, and their ETags, past all code of s3flow."""
        place = f"file:{self.account.folder / 'state.db'}?mode=ro"
        rows = (
            "SELECT b.name || '/' || o.object_key, o.etag FROM objects o"
            " JOIN buckets b ON b.id = o.bucket_id WHERE o.state IN (10, 11)"
        )
        with contextlib.closing(sqlite3.connect(place, uri=True)) as db:
            return dict(db.execute(rows))

    def on_disk(self, name: str) -> str:
        """Give the digest of a copy, "" where there is none."""
        file = self.account.disk / name
        return sha256(file.read_bytes()).hexdigest() if file.is_file() else ""

    def most_at_once(self) -> int:
        """Say how many restores were under way at a time: each takes so long from its request on."""
        moments = [moment for moment, _ in self.restores]
        return max(sum(0 <= last - first < THAW for first in moments) for last in moments)


def doomed(request: Request) -> list[tuple[str, str]]:
    """Say which objects a request deletes, and of which ETags: none, if it deletes whatever is there."""
    if request.kind == "delete":
        return [(f"{request.bucket}/{request.key}", request.if_match)]
    if request.kind != "delete_many":
        return []
    return [
        (f"{request.bucket}/{one.findtext(S3 + 'Key')}", one.findtext(S3 + "ETag", "").strip('"'))
        for one in ElementTree.fromstring(request.body).iter(S3 + "Object")
    ]


@pytest.fixture
def account(tmp_path: Path) -> Iterator[Account]:
    """Give an account of its own on a server whose restores take a while."""
    with (
        servers.ministack(restore_seconds=THAW) as server,
        contextlib.closing(server.client()) as client,
    ):
        yield Account(server, client, tmp_path)


def left(account: Account) -> set[str]:
    """Give what is there still, in all buckets."""
    client = account.client
    names = [bucket["Name"] for bucket in client.list_buckets()["Buckets"]]
    return {f"{name}/{key}" for name in names for key in keys_of(client, name)}


def written(client: BaseClient, buckets: Iterator[str]) -> dict[str, int]:
    """Give when each object was written, by bucket and key."""
    return {
        f"{bucket}/{entry['Key']}": int(entry["LastModified"].timestamp())
        for bucket in buckets
        for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket)
        for entry in page.get("Contents", ())
    }


def fill(account: Account, objects: int, classes: Sequence[str] = CLASSES) -> list[str]:
    """Put objects of *classes* by turns into the buckets; gives those in archives."""
    names = list(BUCKETS)
    for name in names:
        account.make(name, BUCKETS[name])
    archived = []
    for number in range(objects):
        bucket, stored = names[number % len(names)], classes[number % len(classes)]
        key = f"folder {number % 7}/{number:04}"
        account.put(bucket, key, StorageClass=stored)
        if stored in {"GLACIER", "DEEP_ARCHIVE"}:
            archived.append(f"{bucket}/{key}")
    return archived


def put_large(account: Account, bucket: str) -> str:
    body = b"large and cold " * (MIB * 9 // 15)
    account.client.put_object(Bucket=bucket, Key="large", Body=body, StorageClass="GLACIER")
    account.expected[f"{bucket}/large"] = sha256(body).hexdigest()
    return f"{bucket}/large"


def impatient(account: Account, url: str, **flow: object) -> Program:
    """Configure a move that knows how fast this server thaws."""
    return account.program(url, restore_poll="300ms", **flow)


@pytest.mark.parametrize("objects", [FEW, pytest.param(OBJECTS, marks=pytest.mark.long)])
def test_an_account_is_emptied_to_disk_through_kills(account: Account, objects: int) -> None:
    archived = fill(account, objects)
    archived.append(put_large(account, "emptied-photos"))
    times = written(account.client, iter(BUCKETS))
    witness = Witness(account)
    everything = len(account.expected)
    with Proxy(account.server.url, delay=witness) as proxy:
        program = impatient(account, proxy.url, max_restores=MOST)
        for part, how in ((0.1, signal.SIGINT), (0.7, signal.SIGKILL), (0.8, signal.SIGKILL)):
            running = program.start("sync")
            wanted = part * everything
            running.until(lambda wanted=wanted: len(witness.deleted) >= wanted)
            running.process.send_signal(how)
            assert running.process.wait(60) == (75 if how == signal.SIGINT else -how)
            settle(proxy)
            gone = account.expected.keys() - left(account)
            assert 0 < len(gone) < everything, "it was stopped too early, or too late"
            assert gone <= witness.proven().keys()
        program.run("sync")
    assert witness.wrong == []
    assert witness.deleted == account.expected.keys()
    assert left(account) == set()
    assert account.arrived() == account.expected
    found = {name: int((account.disk / name).stat().st_mtime) for name in account.expected}
    assert found == times  # HTTP tells whole seconds
    assert Counter(name for _, name in witness.restores) == Counter(archived)
    assert 1 < witness.most_at_once() <= MOST
    flow = program.flow()
    assert adds_up(flow)
    assert flow["objects"]["deleted"] == flow["objects"]["listed"] == everything
    assert query(program, "SELECT state, COUNT(*) FROM files GROUP BY state") == [
        ("deleted", everything)
    ]
    program.run("audit", "verify")
    program.run("verify")


# --- what goes wrong -------------------------------------------------------------------------------


def nothing_is_lost(account: Account) -> None:
    """See that each object is at the source still, or on the disk as it was."""
    arrived = account.arrived()
    gone = account.expected.keys() - left(account)
    assert {name: arrived.get(name) for name in gone} == {
        name: account.expected[name] for name in gone
    }


def everything_is_emptied(account: Account, program: Program) -> None:
    assert left(account) == set()
    assert account.arrived() == account.expected
    flow = program.flow()
    assert adds_up(flow)
    assert flow["objects"]["deleted"] == len(account.expected)
    assert flow["deletes"] == {"held": None, "kept": {}}


@pytest.mark.parametrize("stored", ["STANDARD", "GLACIER"])
def test_what_is_overwritten_between_proof_and_delete_is_emptied_too(
    account: Account, stored: str
) -> None:
    fill(account, 30)
    witness = Witness(account)
    chosen = "emptied-logs/folder 3/0003"
    first = account.expected[chosen]
    versions: list[str] = []

    def overwrite(request: Request) -> float:
        if any(name == chosen for name, _ in doomed(request)):
            versions.append(witness.on_disk(chosen))
            if len(versions) == 1:
                bucket, _, key = chosen.partition("/")
                body = b"newer bytes"
                account.client.put_object(Bucket=bucket, Key=key, Body=body, StorageClass=stored)
                account.expected[chosen] = sha256(body).hexdigest()
        return 0.0

    with Proxy(account.server.url, delay=overwrite) as proxy:
        program = impatient(account, proxy.url)
        program.run("sync")
    assert versions == [first, account.expected[chosen]]
    everything_is_emptied(account, program)


def careless(request: Request) -> float:
    """Take the conditions out of a delete of many, as stores do that do not know them."""
    request.body = re.sub(rb"<ETag>.*?</ETag>", lambda it: b" " * len(it[0]), request.body)
    return 0.0


def test_a_store_that_ignores_conditions_keeps_everything(account: Account) -> None:
    archived = fill(account, 30)
    unconditional = re.compile(rb"(?i)\r\nif-match:[^\r]*")
    with Proxy(
        account.server.url, delay=careless, rewrite=lambda head: unconditional.sub(b"", head)
    ) as proxy:
        program = impatient(account, proxy.url)
        done = program.run("sync", code=1)
        assert left(account) == account.expected.keys()
        assert account.arrived() == account.expected
        assert program.flow()["deletes"]["kept"] == {"unguarded_delete": 30}
        for said in (done.out, program.run("status").out, program.run("report").out):
            assert "unguarded_delete" in said
        assert "unguarded_delete" in done.err
        program = impatient(account, proxy.url, unguarded_delete=True)
        assert "30 objects" in program.run("retry").out
        before = len(proxy.requests)
        program.run("sync")
        later = proxy.requests[before:]
        assert [request for request in later if request.kind == "get"] == []
        assert len([request for request in later if is_restore(request)]) == 0 < len(archived)
        everything_is_emptied(account, program)


def test_a_legal_hold_keeps_its_object_and_stops_no_other(account: Account) -> None:
    fill(account, 30)
    account.client.create_bucket(Bucket="emptied-locked", ObjectLockEnabledForBucket=True)
    for number in range(6):
        account.put("emptied-locked", f"{number}")
    held = {"Bucket": "emptied-locked", "Key": "4"}
    account.client.put_object_legal_hold(**held, LegalHold={"Status": "ON"})
    program = impatient(account, account.server.url, delete="version")
    done = program.run("sync", code=1)
    assert left(account) == {"emptied-locked/4"}
    assert account.arrived() == account.expected
    assert program.flow()["deletes"]["kept"] == {"delete_denied": 1}
    for said in (done.out, program.run("status").out, program.run("report").out):
        assert "delete_denied" in said
    [line] = program.run("failures").out.splitlines()
    assert "emptied-locked/4\tdelete_denied\t" in line
    program.run("sync", code=1)  # nothing was done, and it is told all the same
    assert "Sources stay: delete_denied 1" in program.run("report").out
    account.client.put_object_legal_hold(**held, LegalHold={"Status": "OFF"})
    program.run("retry")
    program.run("sync")
    everything_is_emptied(account, program)


@pytest.mark.parametrize("lost", [1, 80])
def test_files_that_are_lost_after_their_proof_are_fetched_again(
    account: Account, lost: int
) -> None:
    fill(account, 150, READABLE)
    program = impatient(account, account.server.url)
    assert "no source was deleted" in program.run("sync", "--no-delete").out
    assert account.arrived() == account.expected
    for name in sorted(account.expected)[:lost]:
        (account.disk / name).unlink()
    done = program.run("sync", code=None)
    nothing_is_lost(account)
    if lost > 1:
        held = program.flow()["deletes"]["held"]
        assert "80 were not equal to their sources, or gone" in held["why"]
        for said in (done.out, program.run("status").out, program.run("report").out):
            assert "max_corrupted" in said, said
        program.run("release", "account")
        program.run("sync")
    else:
        assert done.code == 0
    everything_is_emptied(account, program)


def test_a_listing_that_comes_back_half_empty_deletes_nothing(account: Account) -> None:
    fill(account, 140, READABLE)
    halves: list[bytes] = []

    def halve(head: bytes) -> bytes:
        first, _, rest = head.partition(b"\r\n")
        if halves and b"list-type=2" in first and b"s3flow-probe" not in first:
            halves.append(first)
            first = first.replace(b"?", b"?delimiter=/00&", 1)  # most keys become prefixes
        return first + b"\r\n" + rest

    with Proxy(account.server.url, rewrite=halve) as proxy:
        # What was proven before may go while the listing is under way: not so after a while of grace.
        program = impatient(account, proxy.url, delete_after="5s")
        program.run("sync")
        halves.append(b"")
        done = program.run("sync", code=1)
        assert len(halves) > 1
        assert left(account) == account.expected.keys()
        assert "max_missing" in program.flow()["deletes"]["held"]["why"]
        for said in (done.out, program.run("status").out, program.run("report").out):
            assert "max_missing" in said, said
        [held] = [json.loads(line) for line in done.err.splitlines() if "copies go on" in line]
        assert held["level"] == "error"
        halves.clear()
        assert "released" in program.run("release", "account").out
        while left(account):  # the grace period ends in between
            program.run("sync")
    everything_is_emptied(account, program)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a small file system")
def test_a_full_disk_pauses_the_emptying(account: Account) -> None:
    account.make("emptied-large", "eu-west-1")
    for number in range(60):
        body = b"%d " % number * 50_000
        place = {"Bucket": "emptied-large", "Key": f"{number}"}
        account.client.put_object(**place, Body=body)
        account.expected[f"emptied-large/{number}"] = sha256(body).hexdigest()
    witness = Witness(account)
    with (
        small_disk(account.disk, 12 * MIB),
        Proxy(account.server.url, delay=witness) as proxy,
    ):
        ballast = account.disk / "ballast"
        ballast.write_bytes(b"\0" * (7 * MIB))
        program = impatient(account, proxy.url)
        running = program.start("sync")
        running.until(lambda: "flow is blocked" in running.err.read_text())
        [blocked, *_] = [it for it in running.logged() if it["event"] == "flow is blocked"]
        assert blocked["reason"] == "target_full"
        flow = program.flow()
        assert adds_up(flow)
        assert flow["objects"]["failed"] == 0
        assert flow["objects"]["pending"] > 0
        nothing_is_lost(account)
        ballast.unlink()
        running.wait(0)
        assert witness.wrong == []
        everything_is_emptied(account, program)
        assert query(program, "SELECT * FROM files WHERE state = 'error'") == []

"""Copies between accounts: keys that change or are repeated, and a doctor who leaves nothing behind."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from s3flow.engine.probe import Finding, examine
from s3flow.engine.wiring import RouteMaker, Wiring
from s3flow.errors import CredentialsMissing, Refused
from s3flow.model import Original, Place, Span
from s3flow.policies import Mode
from s3flow.stores.crc64 import Crc64Nvme
from tests.contract.s3_scripted import BUCKET, Answer, Request, scripted
from tests.faults import Call, Faulty
from tests.unit.lab import QUICK, Lab, left_tasks, store


def refused(code: str, message: str = "no", status: int = 403) -> Answer:
    body = f"<Error><Code>{code}</Code><Message>{message}</Message></Error>"
    return Answer(status, body.encode())


@pytest.mark.parametrize("code", ["InvalidAccessKeyId", "InvalidToken"])
async def test_keys_that_are_known_no_longer_are_no_object_s_fault(code: str) -> None:
    def script(request: Request) -> Answer:
        return refused(code)

    async with scripted(script) as server:
        store = server.store()
        for call in (
            store.get_object(BUCKET, b"a", etag="e"),
            store.head_object(BUCKET, b"a"),
            store.delete_object(BUCKET, b"a", etag=""),
        ):
            # Every object would fail now: the flow waits, and none is taken for failed.
            with pytest.raises(CredentialsMissing, match=code):
                await call


@pytest.mark.parametrize("code", ["InvalidAccessKeyId", "InvalidToken"])
async def test_keys_that_were_rotated_in_their_file_are_read_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    file = tmp_path / "credentials"

    def write(key: str) -> None:
        file.write_text(f"[mine]\naws_access_key_id={key}\naws_secret_access_key=s\n")

    def script(request: Request) -> Answer:
        if "OLDKEY" in request.headers["authorization"]:
            write("NEWKEY")
            return refused(code)
        return Answer(204)

    write("OLDKEY")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))
    async with scripted(script) as server:
        settings = server.settings(access_key_id=None, secret_access_key=None, profile="mine")
        assert await server.store(settings).delete_object(BUCKET, b"a", etag="")
        assert len(server.requests) == 2


async def test_a_store_that_repeats_what_it_was_sent_tells_no_key_of_either_end() -> None:
    here, there = (base64.b64encode(bytes([n]) * 32).decode() for n in (1, 2))

    def script(request: Request) -> Answer:
        keys = [value for name, value in request.headers.items() if name.endswith("-customer-key")]
        return refused("InvalidArgument", f"these are no keys: {' and '.join(keys)}", 400)

    async with scripted(script) as server:
        source = server.store(server.settings(name="here", customer_key=here))
        target = server.store(server.settings(name="there", customer_key=there))
        original = Original(BUCKET, b"a", "e", 1, "", source.opening)
        for call in (
            source.get_object(BUCKET, b"a", etag="e"),
            target.copy_object(original, BUCKET, b"b", storage_class="", with_tags=True),
            target.upload_part_copy(original, BUCKET, b"b", "id", 1, Span(0, 1)),
        ):
            with pytest.raises(Refused, match="these are no keys") as caught:
                await call
            said = f"{caught.value}"
            assert "***" in said
            assert here not in said
            assert there not in said


# --- doctor ------------------------------------------------------------------------------------


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    """Give a lab whose stores are two accounts of one service."""
    src = store("src", "from")
    return Lab(tmp_path, src, store("dst", "to", beside=src))


async def doctor(lab: Lab, target: Any) -> list[Finding]:
    maker = RouteMaker(QUICK, Crc64Nvme(), lambda event: None, asyncio.Event())
    return [each async for each in examine(maker.route(Wiring(lab.flow, lab.src, target)))]


class Slow(Faulty):
    """Has done what it is asked, and is about to answer; *asked* tells of call number *n*."""

    def __init__(self, inner: Any, n: int) -> None:
        super().__init__(inner)
        self.n = n
        self.asked = asyncio.Event()
        self.calls: list[str] = []

    async def around(self, call: Call, go: Callable[[], Awaitable[Any]]) -> Any:
        self.calls.append(call.method)
        answer = await go()
        if len(self.calls) == self.n:
            self.asked.set()
            await asyncio.sleep(0.01)
        return answer


@pytest.mark.parametrize("mode", [Mode.COPY, Mode.MOVE])
async def test_an_interrupted_doctor_leaves_nothing_behind(lab: Lab, mode: Mode) -> None:
    lab.change(mode=mode)
    lab.put(b"a", 10)
    whole = Slow(lab.dst, 0)
    await doctor(lab, whole)
    assert {"put_object", "create_multipart_upload", "copy_object"} < set(whole.calls)
    for n in range(1, len(whole.calls) + 1):
        slow = Slow(lab.dst, n)
        running = asyncio.create_task(doctor(lab, slow))
        await slow.asked.wait()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert lab.dst.keys("to") == [], slow.calls
        assert lab.uploads() == [], slow.calls
    assert await left_tasks() == []


async def test_doctor_looks_at_buckets_that_the_flow_means(tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    lab.src.make_bucket("another")
    lab.put(b"a", 10)
    lab.change(source=Place("src", "fr*", b""), target=Place("dst", "{bucket}", b""))
    lab.dst.make_bucket("from")
    found = await doctor(lab, lab.dst)
    assert [each.answer for each in found if not each.ok] == []
    said = " ".join(each.tried for each in found)
    assert "list src:from/" in said
    assert "write to dst:from/" in said
    assert "another" not in said

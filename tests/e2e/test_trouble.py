"""When the world misbehaves: full disks, servers that ask to slow down, TLS, and secrets."""

from __future__ import annotations

import contextlib
import os
import random
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.certificates import authority
from tests.e2e.conftest import MIB, Stage
from tests.e2e.content import (
    digests_of_bucket,
    digests_of_folder,
    fill,
    put_large,
    uploads_left,
)
from tests.e2e.program import adds_up
from tests.e2e.proxy import Proxy
from tests.e2e.test_daemon import address, ask

CANARY = "canary-Zx93-do-not-show"


# --- a full disk ---------------------------------------------------------------------------------


@contextlib.contextmanager
def small_disk(folder: Path, size: int) -> Iterator[None]:
    """Mount a file system of *size* bytes at *folder*; skips where that is not allowed."""
    options = f"size={size}"
    mount = ("mount", "-t", "tmpfs", "-o", options, "s3flow-test", str(folder))
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(("umount", "-l", str(folder)), check=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a small file system")
def test_a_full_disk_holds_the_flow_and_loses_nothing(stage: Stage) -> None:
    crowd = fill(stage.server, 0, stage.source, 200, {"large": 9 * MIB})
    program = stage.program(
        {"target": "nas:copy/", "multipart_threshold": 5 * MIB, "part_size": 2 * MIB},
        listen="127.0.0.1:0",
    )
    with small_disk(stage.nas, 12 * MIB):
        ballast = stage.nas / "ballast"
        ballast.write_bytes(b"\0" * (6 * MIB))
        running = program.start("run")
        url = address(running)
        running.until(lambda: "flow is blocked" in running.err.read_text())
        blocked = [entry for entry in running.logged() if entry["event"] == "flow is blocked"]
        assert blocked[0]["reason"] == "target_full"
        assert (
            's3flow_flow_blocked{flow="flow-0",reason="target_full"} 1' in ask(f"{url}/metrics")[1]
        )
        flow = program.flow()
        assert adds_up(flow)
        assert flow["objects"]["failed"] == 0
        assert flow["objects"]["pending"] >= 1
        ballast.unlink()
        running.until(lambda: program.flow()["objects"]["verified"] == 201)
        assert (
            's3flow_flow_blocked{flow="flow-0",reason="target_full"} 0' in ask(f"{url}/metrics")[1]
        )
        running.stop()
        running.wait(0)
        assert digests_of_folder(stage.nas / "copy") == crowd.digests
    assert program.flow()["objects"]["failed"] == 0


# --- throttling and broken answers ---------------------------------------------------------------


def test_a_throttling_server_fails_nothing(stage: Stage) -> None:
    crowd = fill(stage.server, 0, stage.source, 12, {"large": 8 * MIB})
    rng = random.Random(7)
    proxy = stage.proxy(refuse=lambda request: rng.random() < 0.3)
    flow = {"multipart_threshold": 5 * MIB, "part_size": 5 * MIB, "max_attempts": 2}
    program = stage.program(flow, flow | {"name": "disk", "target": "nas:"})
    program.run("sync")
    assert sum(request.status == 503 for request in proxy.requests) > 10
    for status in program.status().values():
        assert status["objects"] == status["objects"] | {"verified": 13, "failed": 0}
    assert digests_of_bucket(stage.theirs, stage.target) == crowd.digests
    assert digests_of_folder(stage.nas) == crowd.digests
    assert uploads_left(stage.theirs, stage.target) == []


# --- TLS and names -------------------------------------------------------------------------------


def test_tls_with_a_private_authority(stage: Stage, tmp_path: Path) -> None:
    ca_file, context = authority(tmp_path)
    digest = put_large(stage.ours, stage.source, "large", 12 * MIB)
    stage.put("small")
    proxy = stage.proxy(tls=context)
    flow = {"multipart_threshold": 5 * MIB, "part_size": 5 * MIB}
    # Without the authority nothing is sent, and the message says what to set.
    done = stage.program(flow).run("sync", code=1)
    assert "ca_file" in done.err
    assert proxy.requests == []
    for name in ("ours", "theirs"):
        stage.endpoints[name]["ca_file"] = str(ca_file)
    program = stage.program(flow)
    program.run("plan")
    program.run("sync")
    assert digests_of_bucket(stage.theirs, stage.target)["large"] == digest
    assert program.flow()["objects"]["verified"] == 2
    assert proxy.counts()["upload_part"] == 2


def as_path(head: bytes) -> bytes:
    """Turn "bucket.s3.test" in a request's Host into the path's first part, as S3 reads it."""
    lines = head.split(b"\r\n")
    method, path, version = lines[0].split(b" ", 2)
    for index, line in enumerate(lines):
        name, _, value = line.partition(b":")
        host = value.strip()
        if name.lower() == b"host" and host.endswith(b".s3.test"):
            lines[0] = b" ".join((method, b"/" + host.removesuffix(b".s3.test") + path, version))
            lines[index] = b"Host: localhost"
    return b"\r\n".join(lines)


def test_virtual_hosts_through_a_proxy_of_the_environment(
    ministack_stage: Stage, tmp_path: Path
) -> None:
    stage = ministack_stage  # it checks no signatures, so that the host may be rewritten
    stage.put("a b/ü", b"words")
    digest = put_large(stage.ours, stage.source, "large", 12 * MIB)
    ca_file, context = authority(tmp_path, "s3.test", "*.s3.test")
    inner = stage.proxy(tls=context, rewrite=as_path)
    tunnel = stage.stack.enter_context(Proxy(inner.url, tunnel=True))
    for name in ("ours", "theirs"):
        stage.endpoints[name] |= {
            "url": "https://s3.test",
            "addressing": "virtual",
            "ca_file": str(ca_file),
        }
    program = stage.program({"multipart_threshold": 5 * MIB, "part_size": 5 * MIB})
    program.run("sync", HTTPS_PROXY=tunnel.url)
    assert {request.host for request in inner.requests} >= {
        f"{stage.source}.s3.test",
        f"{stage.target}.s3.test",
    }
    found = digests_of_bucket(stage.theirs, stage.target)
    assert found["large"] == digest
    assert stage.there("a b/ü") == b"words"


# --- secrets -------------------------------------------------------------------------------------


def test_secrets_appear_nowhere(ministack_stage: Stage) -> None:
    stage = ministack_stage  # which takes any secret
    stage.put("a")
    stage.endpoints["ours"] |= {"session_token": "${CANARY_TOKEN}"}
    program = stage.program(
        {},
        {"name": "missing", "source": "ours:s3flow-is-not-there/", "target": "nas:"},
        listen="127.0.0.1:0",
        log_level="debug",
    )
    program.environ |= {
        "OURS_SECRET": f"{CANARY}-1",
        "THEIRS_SECRET": f"{CANARY}-2",
        "CANARY_TOKEN": f"{CANARY}-3",
    }
    running = program.start("run")
    url = address(running)
    running.until(lambda: program.status()["flow-0"]["objects"]["verified"] == 1)
    running.until(lambda: "no_such_bucket" in running.err.read_text())
    seen = [ask(f"{url}{path}")[1] for path in ("/metrics", "/api/status", "/healthz", "/readyz")]
    seen.append(Path(f"/proc/{running.process.pid}/cmdline").read_text())
    seen.append(Path(f"/proc/{running.process.pid}/comm").read_text())
    running.stop()
    done = running.wait(0)
    seen += [done.out, done.err]
    for words in (("doctor",), ("plan",), ("status",), ("failures",), ("sync",)):
        done = program.run(*words, code=None)
        assert "Traceback" not in done.err or words == ("plan",)
        seen += [done.out, done.err]
    seen.append((program.folder / "state.db").read_bytes().decode("latin-1"))
    assert all(len(text) > 1 for text in seen[:3])
    assert [text for text in seen if CANARY in text] == []

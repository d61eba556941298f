"""Objects under a key of the customer's own, on either side: moved whole and in parts, and never shown."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os

import pytest

from tests.e2e.conftest import Stage
from tests.e2e.content import PART, body_of, uploads_left

SIZE = 2 * PART + 7
HERE, THERE = (os.urandom(32) for _ in range(2))


def opened(key: bytes | None) -> dict[str, str]:
    """Give what boto3 needs to know of a key; it encodes by itself."""
    if key is None:
        return {}
    return {"SSECustomerAlgorithm": "AES256", "SSECustomerKey": key}  # type: ignore[dict-item]


@pytest.mark.parametrize("method", ["server-first", "stream-only"])
@pytest.mark.parametrize(
    ("here", "there"),
    [(None, THERE), (HERE, None), (HERE, THERE)],
    ids=["seal", "open", "seal-anew"],
)
def test_keys_of_the_customer_s_own(
    ministack_stage: Stage, method: str, here: bytes | None, there: bytes | None
) -> None:
    stage = ministack_stage
    # One account: ministack shows nobody the buckets of another.
    stage.endpoints["theirs"] = {**stage.endpoints["ours"]}
    stage.target = stage.source  # below another prefix
    environ = {}
    for name, key in (("ours", here), ("theirs", there)):
        if key is not None:
            stage.endpoints[name]["customer_key"] = f"${{{name.upper()}_SEAL}}"
            environ[f"{name.upper()}_SEAL"] = base64.b64encode(key).decode()
    bodies = {"small": b"some bytes", "empty": b"", "large": b"".join(body_of("large", SIZE))}
    for name, body in bodies.items():
        stage.put(f"in/{name}", body, Metadata={"a": "b"}, **opened(here))
    flow = {
        "method": method,
        "source": f"ours:{stage.source}/in/",
        "target": f"theirs:{stage.target}/out/",
        "multipart_threshold": PART,
        "part_size": PART,
    }
    program = stage.program(flow)
    program.environ |= environ
    done = program.run("sync")
    for name, body in bodies.items():
        place = {"Bucket": stage.target, "Key": f"out/{name}"}
        found = stage.ours.get_object(**place, **opened(there))
        with contextlib.closing(found["Body"]) as read:
            assert hashlib.sha256(read.read()).digest() == hashlib.sha256(body).digest()
        assert found["Metadata"].get("a") == "b"
        if there is not None:
            assert found["SSECustomerAlgorithm"] == "AES256"
    status = program.flow()
    assert status["objects"]["verified"] == 3
    inside = method == "server-first"
    assert set(status["methods"]) == ({"server_copy"} if inside else {"put", "multipart"})
    assert uploads_left(stage.ours, stage.target) == []
    for secret in environ.values():
        assert secret not in done.out + done.err
        for file in program.folder.rglob("*"):
            if file.is_file():
                assert secret.encode() not in file.read_bytes(), file

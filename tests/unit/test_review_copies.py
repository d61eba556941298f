"""What a hostile reading of copies between accounts found, each held by a test."""

from __future__ import annotations

from pathlib import Path

import pytest

from s3flow.errors import CredentialsMissing
from tests.contract.s3_scripted import BUCKET, Answer, Request, scripted


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

"""A store and an authority that repeat what they were told in confidence, in every answer that fails."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import random
import re
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import quote

from tests.contract.s3_scripted import Answer, Request, Scripted

BUCKETS = ("source", "target")
ROLES = "/latest/meta-data/iam/security-credentials/"


@dataclass(slots=True)
class Gossip:
    """Plays S3, STS, an instance's metadata and a container's agent; *mischief* is how often it fails.

    *given* are the secrets that it gives away itself: keys, tokens.
    """

    seed: int
    given: dict[str, str]
    mischief: float = 0.0
    objects: dict[str, bytes] = field(default_factory=dict)
    told: Counter[str] = field(default_factory=Counter)
    draw: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self.draw = random.Random(self.seed)
        for number in range(6):
            self.objects[f"/source/a/{number}"] = bytes([number]) * (number * 400)

    def __call__(self, request: Request) -> Answer:
        """Answer a request."""
        path = request.target.partition("?")[0]
        is_authority = (path == "/" and request.method == "POST") or path.startswith(
            ("/latest", "/agent")
        )
        if self.draw.random() < self.mischief:
            self.told["answers that gossip"] += 1
            return self._gossip(request, is_authority=is_authority)
        if is_authority:
            self.told["keys given"] += 1
            return self._keys(request, path)
        return self._object(request, path)

    # --- as it should be ---------------------------------------------------------------------

    def _keys(self, request: Request, path: str) -> Answer:
        expiry = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 24 * 3600))
        key, secret, token = (self.given[name] for name in ("key", "secret", "token"))
        if path == "/latest/api/token":
            return Answer(body=self.given["imds"].encode())
        if path == ROLES:
            return Answer(body=b"a-role")
        if path != "/":
            found = {"AccessKeyId": key, "SecretAccessKey": secret, "Token": token}
            return Answer(
                body=json.dumps({"Code": "Success", **found, "Expiration": expiry}).encode()
            )
        kind = "AssumeRoleWithWebIdentity" if b"WebIdentity" in request.body else "AssumeRole"
        body = (
            f'<{kind}Response xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><{kind}Result>'
            f"<Credentials><AccessKeyId>{key}</AccessKeyId><SecretAccessKey>{secret}</SecretAccessKey>"
            f"<SessionToken>{token}</SessionToken><Expiration>{expiry}</Expiration></Credentials>"
            f"</{kind}Result></{kind}Response>"
        )
        return Answer(body=body.encode())

    def _object(self, request: Request, path: str) -> Answer:
        name = path.rstrip("/")
        if name.count("/") < 2:
            if request.method == "GET" and "list-type" in request.query:
                return self._listing(name, request.query)
            return Answer(body=b"<Nothing/>")
        if request.method == "PUT":
            self.objects[name] = request.body
            return Answer(headers=self._about(name))
        if request.method == "DELETE":
            self.objects.pop(name, None)
            return Answer(204, length=0)
        if name not in self.objects:
            return Answer(404, b"<Error><Code>NoSuchKey</Code></Error>")
        body = self.objects[name]
        length = len(body) if request.method == "HEAD" else -1
        return Answer(body=body, headers=self._about(name), length=length)

    def _about(self, name: str) -> dict[str, str]:
        digest = hashlib.md5(self.objects[name], usedforsecurity=False).hexdigest()
        return {"etag": f'"{digest}"', "last-modified": "Tue, 14 Nov 2023 22:13:20 GMT"}

    def _listing(self, bucket: str, query: dict[str, str]) -> Answer:
        prefix, after = query.get("prefix", ""), query.get("start-after", "")
        keys = sorted(
            name.removeprefix(f"{bucket}/")
            for name in self.objects
            if name.startswith(f"{bucket}/")
        )
        entries = "".join(
            f"<Contents><Key>{quote(key)}</Key><LastModified>2023-11-14T22:13:20.000Z</LastModified>"
            f"<ETag>{self._about(f'{bucket}/{key}')['etag']}</ETag>"
            f"<Size>{len(self.objects[f'{bucket}/{key}'])}</Size></Contents>"
            for key in keys
            if key.startswith(prefix) and key > after
        )
        head = "<EncodingType>url</EncodingType><IsTruncated>false</IsTruncated>"
        return Answer(body=f"<ListBucketResult>{head}{entries}</ListBucketResult>".encode())

    # --- as it should not be -----------------------------------------------------------------

    def _gossip(self, request: Request, *, is_authority: bool) -> Answer:
        heard = [value for name, value in request.headers.items() if _is_private(name)]
        if is_authority:
            heard.append(request.body.decode(errors="replace"))
        self.draw.shuffle(heard)
        said = " ".join(self._in_a_form(each) for each in heard)
        # No authority names in its refusals what it has not given yet; amid other nonsense it may.
        keys = " ".join(self._in_a_form(each) for each in self.given.values() if is_authority)
        clean = said.replace("&", "&amp;").replace("<", "&lt;")
        code = self.draw.choice(
            ("AccessDenied", "InternalError", "ExpiredToken", "SlowDown", "Odd")
        )
        status = self.draw.choice((400, 403, 403, 500, 503, 200))
        body = self.draw.choice(
            (
                f"<Error><Code>{code}</Code><Message>{clean[:900]}</Message></Error>",
                f"<ErrorResponse><Error><Type>Sender</Type><Code>{code}</Code>"
                f"<Message>{clean}</Message></Error></ErrorResponse>",
                f"<Error><Message>{clean}",
                f"<html><title>{clean} {keys}</title>",
                json.dumps({"Code": code, "Message": keys, "message": said, "Token": keys}),
                f"{said} {keys}",
            )
        )
        told = self.draw.choice(("r1", re.sub(r"[^!-~]", "", said)[:3000]))
        return Answer(status, body.encode(), {"x-amz-request-id": told})

    def _in_a_form(self, text: str) -> str:
        form = self.draw.randrange(6)
        if form == 0:
            return quote(text, safe="")
        if form == 1:
            return base64.b64encode(text.encode()).decode()
        if form == 2:
            return text.encode().hex()
        if form == 3:
            return text[: len(text) // 2] + " " + text[len(text) // 2 :]
        return text


def _is_private(name: str) -> bool:
    return name in ("authorization", "x-amz-security-token", "x-aws-ec2-metadata-token") or (
        name.startswith("x-amz-server-side-encryption-customer-key") and not name.endswith("md5")
    )


@contextmanager
def gossiping(gossip: Gossip) -> Iterator[str]:
    """Serve, in a thread; gives the URL."""
    loop = asyncio.new_event_loop()
    server = Scripted(gossip)
    ready = threading.Event()

    async def serve() -> None:
        listener = await asyncio.start_server(server.serve, "127.0.0.1", 0)
        server.port = listener.sockets[0].getsockname()[1]
        ready.set()
        await over.wait()
        listener.close()
        await server.close()

    over = asyncio.Event()
    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()), name="gossip")
    thread.start()
    ready.wait()
    try:
        yield f"http://127.0.0.1:{server.port}"
    finally:
        loop.call_soon_threadsafe(over.set)
        thread.join()
        loop.close()

"""What real stores do not take or keep: each gap with its reason, so that none is passed over in silence."""

from __future__ import annotations

import pytest

from tests.servers import Server

# store -> what it lacks -> why. A key is named without the z at its end: "store-only/" is the long one.
GAPS: dict[str, dict[str, str]] = {
    "ceph": {
        "storage-classes": "its zone has STANDARD alone until an operator adds others",
        "copied-version": "it does not say which version of the source it has copied",
        "compared-deletes": "it deletes whatever is there, whatever If-Match says",
        "foreign-part-copies": "it denies UploadPartCopy to other accounts, whatever a policy says",
        "key store-only/": "its disk in memory is set up for names below 460 bytes",
    },
    "localstack": {
        "second-account": "it knows one account",
        "conditional-delete": "it refuses DeleteObject with If-Match: what doctor writes stays",
        "compared-deletes": "it refuses DeleteObject with If-Match",
    },
    "ministack": {
        "foreign-buckets": "an account sees no bucket of another, whatever a policy says",
    },
    "minio": {
        "compared-deletes": "it deletes whatever is there, whatever If-Match says",
        "copied-version": "it does not say which version of the source it has copied",
        "copied-expires": "it forgets Expires when it copies an object by itself",
        "second-account": "its root user only: others need its admin API",
        "storage-classes": "it has STANDARD and REDUCED_REDUNDANCY",
        "key store-only/a//b": "it refuses empty path components",
        "key store-only/./dot": "it refuses the component '.'",
        "key store-only/../dots": "it refuses the component '..'",
        "key store-only/": "it refuses components over 255 bytes",
    },
    "versitygw": {
        "versions": "it keeps them only when it is given a folder for them",
        "storage-classes": "it takes any and lists STANDARD",
        "key store-only/a//b": "over a folder it stores a/b instead, without a word",
        "key store-only/./dot": "over a folder it stores dot instead, without a word",
        "key store-only/../dots": "over a folder it stores dots a level higher, without a word",
        "key store-only/": "over a folder it refuses components over 255 bytes",
    },
}


def lacks(server: Server, what: str) -> str:
    """Say why the store lacks *what*, "" when it does not."""
    return GAPS.get(server.store, {}).get(what, "")


def need(server: Server, what: str) -> None:
    """Skip the test, with the reason, when the store lacks *what*."""
    if reason := lacks(server, what):
        pytest.skip(f"{server.store}: {reason}")


def moving(server: Server, **more: object) -> dict[str, object]:
    """Give a flow that moves, on stores that do not compare before they delete as well."""
    return {"mode": "move", "unguarded_delete": bool(lacks(server, "compared-deletes")), **more}


def other(server: Server) -> int:
    """Give the number of the account that targets belong to: the second, where there is one."""
    return min(1, len(server.accounts) - 1)

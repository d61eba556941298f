"""What real stores do not take or keep: each gap with its reason, so that none is passed over in silence."""

from __future__ import annotations

import pytest

from tests.servers import Server

# store -> what it lacks -> why
GAPS: dict[str, dict[str, str]] = {
    "ceph": {
        "storage-classes": "its zone has STANDARD alone until an operator adds others",
        f"key store-only/{'z' * 29}": "its disk in memory is set up for names below 460 bytes",
    },
    "localstack": {"second-account": "it knows one account"},
    "minio": {"second-account": "its root user only: others need its admin API"},
}


def lacks(server: Server, what: str) -> str:
    """Say why the store lacks *what*, "" when it does not."""
    return GAPS.get(server.store, {}).get(what, "")


def need(server: Server, what: str) -> None:
    """Skip the test, with the reason, when the store lacks *what*."""
    if reason := lacks(server, what):
        pytest.skip(f"{server.store}: {reason}")


def other(server: Server) -> int:
    """Give the number of the account that targets belong to: the second, where there is one."""
    return min(1, len(server.accounts) - 1)

"""The datagrams to systemd, sent to a socket of our own."""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from s3flow.observe import systemd


@contextmanager
def supervisor(address: str) -> Iterator[socket.socket]:
    """Listen as systemd does."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(address)
        listener.settimeout(10)
        yield listener


def test_messages_arrive_at_a_path(tmp_path: Path) -> None:
    path = str(tmp_path / "notify")
    with supervisor(path) as listener:
        told = systemd.notify(systemd.READY, systemd.status("3 flows\nX=1"), environ=at(path))
        assert told
        assert listener.recv(1024) == b"READY=1\nSTATUS=3 flows X=1"


def test_messages_arrive_in_the_abstract_namespace() -> None:
    name = f"s3flow-test-{os.getpid()}-{secrets.token_hex(4)}"
    with supervisor("\0" + name) as listener:
        assert systemd.notify(systemd.STOPPING, environ=at("@" + name))
        assert listener.recv(1024) == b"STOPPING=1"


def at(path: str) -> dict[str, str]:
    return {"NOTIFY_SOCKET": path}


@pytest.mark.parametrize("environ", [{}, at(""), at("relative"), at("/nowhere/notify")])
def test_nobody_listens(environ: dict[str, str]) -> None:
    assert not systemd.notify(systemd.WATCHDOG, environ=environ)


def test_watchdog_interval_is_half_of_what_is_allowed() -> None:
    assert systemd.watchdog_interval({"WATCHDOG_USEC": "60000000"}) == 30.0
    own = {"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": str(os.getpid())}
    assert systemd.watchdog_interval(own) == 30.0


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"WATCHDOG_USEC": "0"},
        {"WATCHDOG_USEC": "soon"},
        {"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": "1"},
    ],
)
def test_no_watchdog_is_asked_for(environ: dict[str, str]) -> None:
    assert systemd.watchdog_interval(environ) is None

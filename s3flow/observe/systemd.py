"""Tells systemd how the daemon is: the sd_notify(3) datagrams, without its library."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping

READY = "READY=1"
STOPPING = "STOPPING=1"
WATCHDOG = "WATCHDOG=1"


def status(text: str) -> str:
    """Make the message that `systemctl status` shows; one line, as the protocol asks."""
    return "STATUS=" + " ".join(text.split())


def notify(*messages: str, environ: Mapping[str, str] = os.environ) -> bool:
    """Send *messages*; False when nobody supervises, or the supervisor's socket is gone."""
    path = environ.get("NOTIFY_SOCKET", "")
    if not path.startswith(("/", "@")):
        return False
    address = "\0" + path[1:] if path[0] == "@" else path  # "@": the abstract namespace of Linux
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
        sender.setblocking(False)  # a supervisor that does not read must not stop transfers
        try:
            sender.sendto("\n".join(messages).encode(), address)
        except OSError:
            return False
    return True


def watchdog_interval(environ: Mapping[str, str] = os.environ) -> float | None:
    """Say how often to send WATCHDOG, in seconds: half of what is allowed. None: not asked for."""
    pid, allowed = environ.get("WATCHDOG_PID", ""), environ.get("WATCHDOG_USEC", "")
    if pid and pid != str(os.getpid()):  # meant for a parent of ours
        return None
    if not allowed.isascii() or not allowed.isdigit() or int(allowed) == 0:
        return None
    return int(allowed) / 2_000_000

"""Objects of s3flow's own, by which it tries what stores do: how they are named, and told from people's.

They are there for moments, and a death may leave one. A flow neither takes them for its own nor leaves
them for good; but what only begins like one of them, or has its name and other bytes, is somebody's.
"""

from __future__ import annotations

import hashlib
import re

from s3flow.model import Listed

DELETE_PROBE = b".s3flow-probe-"  # begins the keys of those that show how a source deletes
DOCTOR_PROBE = b"s3flow-doctor-"  # the same at targets: what `doctor` writes, and removes
FOLDER_PROBE = b"s3flow-probe-"  # the same in folders, where the first is for unfinished files
PROBE_LEFT = 3600.0  # seconds after which a probe has no maker any more

DELETE_BYTES = b"s3flow tries whether deletes are conditional here\n"
DOCTOR_BYTES = b"s3flow doctor\n"
_ENDING = re.compile(b"[0-9a-f]{16}")


def ending(maker: str, flow: str) -> str:
    """Give what ends the name of a probe of *maker* for a flow, whatever letters that name has."""
    return hashlib.sha256(f"{maker}/{flow}".encode()).hexdigest()[:16]


def is_named_so(key: bytes, begin: bytes) -> bool:
    """Say whether *key* is the name of a probe whose name has that *begin*, prefix included."""
    return key.startswith(begin) and _ENDING.fullmatch(key, len(begin)) is not None


def looks_so(entry: Listed, begin: bytes) -> bool:
    """Say whether what is listed is a probe by its name and its size: all that a sealed one shows."""
    known = {len(DELETE_BYTES), len(DOCTOR_BYTES), len(entry.key)}  # some are their own name
    return is_named_so(entry.key, begin) and entry.size in known


def is_certain(entry: Listed, begin: bytes) -> bool:
    """Say whether it is one by its bytes as well, so that it may be removed whoever made it."""
    known = (DELETE_BYTES, DOCTOR_BYTES, entry.key)
    return is_named_so(entry.key, begin) and entry.etag in {_md5(each) for each in known}


def _md5(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()

"""S3's REST dialect at speed: HTTP/1.1, SigV4 and XML, knowing nothing of objects or policy."""

from __future__ import annotations

from s3flow.wire.http import Origin, Pool, Response, Timeouts, proxy_for

__all__ = ["Origin", "Pool", "Response", "Timeouts", "proxy_for"]

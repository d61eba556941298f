"""S3 and what speaks its language, as a source and as a target."""

from __future__ import annotations

from s3flow.stores.s3.settings import S3Settings
from s3flow.stores.s3.store import S3Store

__all__ = ["S3Settings", "S3Store"]

"""s3flow moves objects out of S3 into S3 or local disk, verified and resumable."""

from __future__ import annotations

__version__ = "0.1.0"

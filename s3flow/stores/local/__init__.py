"""Local disk as a target: files that appear whole, durable, and never outside their root."""

from __future__ import annotations

from s3flow.stores.local.store import LocalStore

__all__ = ["LocalStore"]

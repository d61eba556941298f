"""Where s3flow keeps what it knows of every object."""

from __future__ import annotations

from s3flow.state.sqlite import SqliteState, open_sqlite

__all__ = ["SqliteState", "open_sqlite"]

"""A trail of what happened, and questions about it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from s3flow.model import Change, Method, Proof, State, Transfer
from s3flow.ports import StateStore
from s3flow.records import Audited
from s3flow.state.audit import Check
from s3flow.state.queries import fetch
from s3flow.state.store import SqlState


async def query(state: StateStore, statement: str) -> list[tuple[Any, ...]]:
    """Ask the database as a person would."""
    assert isinstance(state, SqlState)
    return [tuple(row) for row in await state._database.read(lambda: fetch(statement))]


async def trail(state: StateStore, flow: str = "documents") -> list[Audited]:
    rows = await state.audit(flow)
    check = Check()
    check.rows(rows)
    assert isinstance(state, SqlState)
    assert check.end((await state.audited()).get(flow)) is None
    return rows


async def facts(state: StateStore) -> list[tuple[str, bytes]]:
    return [(row.fact, row.key) for row in await trail(state)]


def verified(transfer: Transfer, **more: Any) -> Change:
    given = {"method": Method.SERVER_COPY, "proof": Proof.ETAG, "target_etag": "t1", **more}
    return Change(transfer, State.VERIFIED, **given)


def text(rows: Sequence[tuple[Any, ...]]) -> list[tuple[str, ...]]:
    return [tuple(str(value) for value in row) for row in rows]

"""What the short commands do with the state alone: read it, send failures back to work, forget."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from s3flow.config import Settings
from s3flow.errors import ConfigError, StateEmpty
from s3flow.model import Flow
from s3flow.observe.board import read_snapshots
from s3flow.observe.progress import FlowSnapshot, snapshot
from s3flow.state.opening import open_holds, open_state
from s3flow.state.store import SqlState

Failure = tuple[str, bytes, str, str]  # bucket, key, reason, message


async def known_state(settings: Settings) -> SqlState | None:
    """Open the state for reading; None when nothing has run yet."""
    try:
        return await open_state(settings.daemon.state_address, read_only=True)
    except StateEmpty:
        return None


async def read_status(
    settings: Settings, flows: Sequence[Flow], *, classes: bool = False
) -> list[FlowSnapshot]:
    """Read where the flows stand, also while a daemon runs; all zero before the first run.

    *classes*: count the states of each storage class too, which takes a look at every row.
    """
    state = await known_state(settings)
    if state is None:
        return [snapshot(flow, [], [], {}, None, 0.0) for flow in flows]
    try:
        holds = open_holds(settings.daemon.state_address)
        found = await read_snapshots(state, flows, holds=holds)
        if not classes:
            return found
        counted = [await state.class_states(flow.name) for flow in flows]
        return [
            replace(one, inventory=one.inventory._replace(states=states))
            for one, states in zip(found, counted, strict=True)
        ]
    finally:
        await state.close()


async def read_failures(
    settings: Settings, flows: Sequence[Flow], limit: int
) -> dict[str, list[Failure]]:
    """Give failed objects by flow."""
    state = await known_state(settings)
    if state is None:
        return {flow.name: [] for flow in flows}
    try:
        return {flow.name: await state.failures(flow.name, limit) for flow in flows}
    finally:
        await state.close()


async def retry_failed(
    settings: Settings, flows: Sequence[Flow], reason: str | None
) -> dict[str, int]:
    """Send failed objects (of one reason) back to work; says how many of each flow."""
    state = await open_state(settings.daemon.state_address, audited=settings.daemon.audit)
    try:
        return {flow.name: await state.retry(flow.name, reason) for flow in flows}
    finally:
        await state.close()


async def forget_flow(settings: Settings, name: str) -> None:
    """Drop all that is known of a flow. Raises `ConfigError` if the state has never heard of it."""
    state = await open_state(settings.daemon.state_address, audited=settings.daemon.audit)
    try:
        if not await state.forget(name):
            known = ", ".join(await state.flow_names()) or "none"
            raise ConfigError(f"the state knows no flow {name!r}; it has: {known}")
    finally:
        await state.close()

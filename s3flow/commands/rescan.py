"""`s3flow rescan`: sources are listed again, also while a daemon runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from s3flow.commands.start import DEFAULT_CONFIG, Config, Flows, fail, load_settings, run_async

if TYPE_CHECKING:
    from s3flow.config import Settings
    from s3flow.model import Flow


def rescan(
    config: Config = DEFAULT_CONFIG,
    flow: Flows = None,
    bucket: Annotated[
        str | None, typer.Option("--bucket", "-b", help="Only this source bucket.")
    ] = None,
) -> None:
    """List sources again: a running daemon does so at once, else the next run or sync."""
    settings, flows = load_settings(config, flow)
    if bucket is not None:
        flows = _reading(flows, bucket)
    what = "all buckets are" if bucket is None else f"{bucket} is"
    for name, who in run_async(_rescan(settings, flows, bucket)).items():
        typer.echo(f"{name}: {what} listed again by {who}")


def _reading(flows: list[Flow], bucket: str) -> list[Flow]:
    """Give those that read from *bucket*; where none does, its name is a mistake."""
    from s3flow.errors import ConfigError

    found = [flow for flow in flows if flow.reads(bucket)]
    if not found:
        sources = ", ".join(f"{flow.name} {flow.source}" for flow in flows)
        fail(ConfigError(f"no flow reads from a bucket {bucket!r}; they read from: {sources}"))
    return found


async def _rescan(settings: Settings, flows: list[Flow], bucket: str | None) -> dict[str, str]:
    from s3flow.errors import StateLocked
    from s3flow.state.opening import open_state, open_wishes

    address = settings.daemon.state_address
    try:
        state = await open_state(address, audited=settings.daemon.audit)
    except StateLocked:
        wishes = open_wishes(address)
        for flow in flows:
            await wishes.put(flow.name, bucket)
        return dict.fromkeys([flow.name for flow in flows], "the daemon that runs")
    try:
        known = set(await state.flow_names())
        for flow in flows:
            if flow.name in known:  # of another, the first run lists everything anyway
                await state.rescan(flow.name, bucket)
    finally:
        await state.close()
    return dict.fromkeys([flow.name for flow in flows], "the next run or sync")

"""`s3flow hold` and `s3flow release`: whether sources of a move are deleted, also while a daemon runs."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from s3flow.commands.start import DEFAULT_CONFIG, Config, load_settings, run_async

Flow = Annotated[str, typer.Argument(help="The name of the flow.")]


def hold(
    flow: Flow,
    config: Config = DEFAULT_CONFIG,
    why: Annotated[str, typer.Option("--why", help="Shown in status and logs.")] = "",
) -> None:
    """Delete no sources of a flow from now on; it copies on. Holds until `s3flow release`."""
    from s3flow.records import Hold
    from s3flow.state.opening import open_holds

    settings, _ = load_settings(config, [flow])
    said = Hold(why or "a person holds it", time.time())
    run_async(open_holds(settings.daemon.state_address).put(flow, said))
    typer.echo(f"{flow}: no source is deleted until `s3flow release {flow}`")


def release(flow: Flow, config: Config = DEFAULT_CONFIG) -> None:
    """Let sources be deleted again, after `s3flow hold` or the circuit breaker."""
    from s3flow.state.opening import open_holds

    settings, _ = load_settings(config, [flow])
    was_held = run_async(open_holds(settings.daemon.state_address).drop(flow))
    typer.echo(f"{flow}: released" if was_held else f"{flow}: was not held")

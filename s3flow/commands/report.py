"""`s3flow report`: what the last runs did, from the files that they left, or from the state alone."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from s3flow.commands.start import DEFAULT_CONFIG, Config, Flows, load_settings, run_async

if TYPE_CHECKING:
    from s3flow.config import Settings
    from s3flow.model import Flow


def report(
    config: Config = DEFAULT_CONFIG,
    flow: Flows = None,
    last: Annotated[
        bool, typer.Option("--last", help="Only the newest report, whichever flows it is about.")
    ] = False,
    names: Annotated[
        bool, typer.Option("--list", help="Name the files, the newest first.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Show what was done, how fast and how: the newest report on each flow."""
    from s3flow.observe.filing import newest_reports, reports_in
    from s3flow.observe.report import report_lines

    settings, flows = load_settings(config, flow)
    folder = settings.reports_folder
    if names:
        for path in reports_in(folder) if folder else []:
            typer.echo(path.with_suffix(".log"))
        return
    chosen = [one.name for one in flows]
    found = newest_reports(folder, chosen, last=last, warn=_warn) if folder else []
    if not found:
        _from_the_state(settings, flows, as_json=as_json)
    elif as_json:
        typer.echo(json.dumps({"reports": found}, indent=1))
    else:
        typer.echo("\n\n\n".join("\n".join(report_lines(one)) for one in found))


def _warn(message: str) -> None:
    typer.echo(f"s3flow: warning: {message}", err=True)


def _from_the_state(settings: Settings, flows: list[Flow], *, as_json: bool) -> None:
    """Show where the flows stand instead: of runs that have left no report, no more is known."""
    from s3flow.observe.progress import as_json as shape
    from s3flow.observe.report import summary_lines
    from s3flow.operations import read_status

    snapshots = run_async(read_status(settings, flows))
    if as_json:
        typer.echo(json.dumps({"reports": [], "state": shape(snapshots)}, indent=1))
        return
    folder = settings.reports_folder
    where = f"{folder} has no report on it" if folder else 'daemon.reports is "": none is written'
    typer.echo(f"{where}; by the state:", err=True)
    for line in summary_lines(snapshots):
        typer.echo(line)

"""`s3flow report`: what the last runs did, from the files that they left, or from the state alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from s3flow.commands.start import DEFAULT_CONFIG, Config, Flows, fail, load_settings, run_async
from s3flow.errors import S3flowError

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
    certificate: Annotated[
        bool,
        typer.Option(
            "--certificate", help="Certify object by object what has arrived; 1 if not all has."
        ),
    ] = False,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="The certificate's file; else the terminal."),
    ] = None,
    check: Annotated[
        Path | None, typer.Option("--check", help="Check that a certificate is unchanged.")
    ] = None,
) -> None:
    """Show what was done, how fast and how: the newest report on each flow."""
    if check is not None:
        from s3flow.commands.certificate import check_certificate

        check_certificate(check)
    from s3flow.observe.filing import newest_reports, reports_in
    from s3flow.observe.report import report_lines

    settings, flows = load_settings(config, flow)
    if certificate:
        from s3flow.commands.certificate import certify

        certify(settings, flows, output)
    folder = settings.reports_folder
    chosen = [one.name for one in flows]
    try:
        files = reports_in(folder) if folder else []
        found = [] if names else newest_reports(files, chosen, last=last, warn=_warn)
    except S3flowError as error:
        fail(error)
    if names:
        for path in files:
            typer.echo(path.with_suffix(".log"))
        return
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

"""The commands: parse, call, print. What they do is elsewhere."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from s3flow import __version__
from s3flow.commands.audit import audit
from s3flow.commands.hold import hold, release
from s3flow.commands.report import report
from s3flow.commands.rescan import rescan
from s3flow.commands.start import (
    DEFAULT_CONFIG,
    Config,
    Flows,
    load_and_log,
    load_settings,
    run_async,
)
from s3flow.commands.state import state
from s3flow.commands.verify import verify

if TYPE_CHECKING:
    from s3flow.config import Settings
    from s3flow.model import Flow
    from s3flow.observe.progress import FlowSnapshot

NoDelete = Annotated[
    bool, typer.Option("--no-delete", help="Of moves: copy and verify, delete no source this time.")
]

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,  # its tracebacks print local variables, secrets among them
    help="Move objects out of S3 into S3 or local disk: verified, resumable, observable.",
    epilog="Exit codes: 0 all done; 1 finished, but some failed, had to stay or could not be listed; "
    "2 usage or configuration; 3 another process has the state; 4 (verify) nothing differs, not all is "
    "proven; 75 interrupted, or a disk or server was away: run again.",
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"s3flow {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass


def _work(
    config: Path,
    names: list[str] | None,
    *,
    once: bool,
    scan_only: bool = False,
    no_delete: bool = False,
) -> NoReturn:
    """Run the daemon's work, print where the flows stand, and exit as it ended."""
    from s3flow.app import Work
    from s3flow.observe.report import summary_lines

    settings, flows = load_and_log(config, names)

    async def main() -> tuple[int, list[FlowSnapshot], Path | None]:
        work = Work(settings, flows, once=once, scan_only=scan_only, no_delete=no_delete)
        return *await work.run(), work.report

    ending, snapshots, file = run_async(main())
    if once or scan_only:
        for line in summary_lines(snapshots, file):
            typer.echo(line)
        if no_delete:
            typer.echo("no source was deleted, whatever its flow says: --no-delete")
    raise typer.Exit(int(ending))


@app.command()
def run(config: Config = DEFAULT_CONFIG, flow: Flows = None, no_delete: NoDelete = False) -> None:
    """Run the daemon: scan, transfer, verify, record; again after each flow's `every`."""
    _work(config, flow, once=False, no_delete=no_delete)


@app.command()
def sync(config: Config = DEFAULT_CONFIG, flow: Flows = None, no_delete: NoDelete = False) -> None:
    """Do the same once, until everything is done."""
    _work(config, flow, once=True, no_delete=no_delete)


@app.command()
def scan(config: Config = DEFAULT_CONFIG, flow: Flows = None) -> None:
    """Discover only: record what there is, transfer nothing."""
    _work(config, flow, once=True, scan_only=True)


@app.command()
def plan(
    config: Config = DEFAULT_CONFIG,
    flow: Flows = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show what would be transferred, by which method, what not and why, and its cost. Only reads."""
    from s3flow.observe.plans import plan_json, plan_view
    from s3flow.rehearsal import plan_flows

    settings, flows = load_and_log(config, flow)
    plans = run_async(plan_flows(settings, flows))
    if as_json:
        typer.echo(json.dumps(plan_json(plans), indent=2))
    else:
        _print(plan_view(plans))


@app.command()
def status(
    config: Config = DEFAULT_CONFIG,
    flow: Flows = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    buckets: Annotated[bool, typer.Option("--buckets", help="Each source bucket too.")] = False,
    classes: Annotated[
        bool, typer.Option("--classes", help="Each storage class's states too: looks at every row.")
    ] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Print again every 2 seconds.")] = False,
) -> None:
    """Show where the flows stand, from the state alone, also while a daemon runs."""
    settings, flows = load_settings(config, flow)
    if not watch:
        _show_status(settings, flows, as_json=as_json, buckets=buckets, classes=classes)
        return
    # Asked for, not raised: an exception at any instruction may be one in a destructor, and lost.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    while True:
        shown = {"buckets": buckets, "classes": classes, "again": True}
        _show_status(settings, flows, as_json=as_json, **shown)
        if signal.sigtimedwait({signal.SIGINT}, 2) is not None:
            return


def _show_status(
    settings: Settings,
    flows: list[Flow],
    *,
    as_json: bool,
    buckets: bool,
    classes: bool,
    again: bool = False,
) -> None:
    from s3flow.operations import read_status

    snapshots = run_async(read_status(settings, flows, classes=classes))
    if as_json:
        from s3flow.observe.progress import as_json as shape

        found = shape(snapshots, buckets=buckets)
        typer.echo(json.dumps(found, indent=None if again else 2))
    else:
        from s3flow.observe.status import status_table

        _print(status_table(snapshots, buckets=buckets), clear=again)


@app.command()
def retry(
    config: Config = DEFAULT_CONFIG,
    flow: Flows = None,
    reason: Annotated[
        str | None, typer.Option("--reason", "-r", help="Only those that failed for this reason.")
    ] = None,
) -> None:
    """Send failed objects back to work; the next run or sync takes them."""
    from s3flow.operations import retry_failed

    settings, flows = load_settings(config, flow)
    for name, count in run_async(retry_failed(settings, flows, reason)).items():
        typer.echo(f"{name}: {count:,} objects will be tried again")


app.command()(rescan)
app.command()(report)
app.command()(verify)
app.command()(hold)
app.command()(release)
app.add_typer(audit, name="audit")
app.add_typer(state, name="state")


@app.command()
def failures(
    config: Config = DEFAULT_CONFIG,
    flow: Flows = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many of each flow.")] = 100,
) -> None:
    """List failed objects, and sources that stay, with their reasons: one a line, separated by tabs."""
    from s3flow.observe.text import shown
    from s3flow.operations import read_failures

    settings, flows = load_settings(config, flow)
    for name, failed in run_async(read_failures(settings, flows, limit + 1)).items():
        for bucket, key, reason, message in failed[:limit]:
            typer.echo(f"{name}\t{bucket}/{shown(key)}\t{reason}\t{shown(message.encode())}")
        if len(failed) > limit:
            typer.echo(f"{name}: there are more than these {limit:,}: raise --limit", err=True)


@app.command()
def forget(
    flow: Annotated[
        str, typer.Argument(help="The name of the flow; it may be gone from the file.")
    ],
    config: Config = DEFAULT_CONFIG,
) -> None:
    """Forget all that is known of a flow; what is at its target is adopted, not copied again."""
    from s3flow.operations import forget_flow

    settings, _ = load_settings(config, None)
    run_async(forget_flow(settings, flow))
    typer.echo(f"{flow}: forgotten")


@app.command()
def doctor(
    config: Config = DEFAULT_CONFIG,
    flow: Flows = None,
    policies: Annotated[
        bool,
        typer.Option("--policies", help="Print the IAM and bucket policies that the flows need."),
    ] = False,
) -> None:
    """Check the configuration, and each endpoint, bucket and permission with real requests."""
    from s3flow.observe import text
    from s3flow.process import Ending, end_as_by_a_key
    from s3flow.rehearsal import examine_flows

    settings, flows = load_and_log(config, flow)
    typer.echo(f"ok    configuration: {config} has {len(flows)} flows to check")
    answers: list[str] = []

    async def main() -> bool:
        healthy = True
        async for finding in examine_flows(settings, flows):
            healthy = healthy and finding.ok
            answers.append(finding.answer)
            mark = "ok  " if finding.ok else "FAIL"
            said = text.shown(finding.answer, 2000)
            typer.echo(f"{mark}  {finding.flow}: {text.shown(finding.tried)}: {said}")
            if not finding.ok:
                typer.echo(f"      to do: {text.shown(finding.remedy, 2000)}")
        return healthy

    end_as_by_a_key()  # probes are written
    healthy = run_async(main())
    if policies:
        from s3flow.config.permissions import as_text

        for line in as_text(settings, flows, answers):
            typer.echo(line)
    raise typer.Exit(Ending.DONE if healthy else Ending.SOME_FAILED)


def _print(table: object, *, clear: bool = False) -> None:
    from rich.console import Console

    console = Console(width=None if sys.stdout.isatty() else 100)
    if clear:
        console.clear()  # does nothing where there is no terminal
    console.print(table)

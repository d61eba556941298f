"""`s3flow verify`: whether the copies are still equal to what they were made of."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from s3flow.commands.start import DEFAULT_CONFIG, Config, Flows, load_and_log, run_async

if TYPE_CHECKING:
    from rich.text import Text

    from s3flow.engine.reverify import Copy, Looked
    from s3flow.errors import S3flowError
    from s3flow.observe.proofs import Proven
    from s3flow.proving import Proving

UNCOMPARED_SHOWN = 20  # of a run, where people read: they are counted all the same


def _share(text: str) -> float:
    from s3flow.config.units import parse_share

    try:
        share = parse_share(text)
    except ValueError as error:
        raise typer.BadParameter(f"{text!r} {error}") from error
    if not share:
        raise typer.BadParameter("a sample of nothing proves nothing")
    return share


def verify(
    config: Config = DEFAULT_CONFIG,
    flow: Flows = None,
    sample: Annotated[
        str, typer.Option(help='A share of the objects, such as "5%": the same ones each time.')
    ] = "100%",
    read: Annotated[
        bool,
        typer.Option(
            "--read", help="Read the copies, and sources that state no sum; else stores are asked."
        ),
    ] = False,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Look at so many of each flow at most.")
    ] = None,
    listing: Annotated[
        bool,
        typer.Option(
            "--listing",
            help="Compare what the source lists now, whoever copied it; the state is not asked.",
        ),
    ] = False,
    mark: Annotated[
        bool,
        typer.Option(
            "--mark", help="Mark what is missing or not equal as failed, so that retry copies it."
        ),
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Lines of JSON, the last one with the counts.")
    ] = False,
) -> None:
    """Prove copies again, by what both sides say now or by their bytes. Changes nothing at either side.

    Extra objects at the target are not looked for. Exit codes: 0 all proven; 1 some are missing, not equal,
    or changed at the source since; 4 none of that, but some could be compared by their size alone or not
    at all; 2 usage or configuration; 3 another process has the state (--mark); 75 interrupted.
    """
    from s3flow.proving import Proving, Wish

    share = _share(sample)
    if mark and listing:
        raise typer.BadParameter(
            "--mark is for copies that the state knows; --listing asks no state"
        )
    settings, flows = load_and_log(config, flow)
    wish = Wish(share, limit, read, listing, mark)
    shown = _Shown(as_json=as_json)
    proving = Proving(settings, wish, shown.copy, shown.bucket)
    with _progress(proving):
        run_async(proving.run(flows))
    _end(proving, as_json=as_json)


class _Shown:
    """Prints what is not equal; of what could not be compared, where people read, the first ones."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self._uncompared = 0

    def copy(self, flow: str, copy: Copy, looked: Looked) -> None:
        from s3flow.engine.reverify import DIFFERENT, Result
        from s3flow.observe.proofs import line

        if looked.result is Result.NOT_COMPARED:
            self._uncompared += 1
        elif looked.result not in DIFFERENT:
            return
        if not self._as_json and self._uncompared == UNCOMPARED_SHOWN + 1:
            self._uncompared += 1
            typer.echo("s3flow: more could not be compared; --json names them all", err=True)
        if looked.result in DIFFERENT or self._as_json or self._uncompared <= UNCOMPARED_SHOWN:
            typer.echo(line(flow, copy, looked, as_json=self._as_json))

    def bucket(self, flow: str, bucket: str, error: S3flowError) -> None:
        from s3flow.observe.proofs import bucket_line

        typer.echo(bucket_line(flow, bucket, error, as_json=self._as_json))


def _end(proving: Proving, *, as_json: bool) -> NoReturn:
    from s3flow.observe.proofs import summary, summary_json
    from s3flow.process import Ending

    interrupted = proving.stop.is_set()
    if as_json:
        typer.echo(summary_json(proving.proven, interrupted=interrupted))
    else:
        for text in summary(proving.proven, interrupted=interrupted):
            typer.echo(text)
    if interrupted:
        raise typer.Exit(Ending.INTERRUPTED)
    if any(one.different for one in proving.proven):
        raise typer.Exit(Ending.SOME_FAILED)
    weak = any(one.unproven for one in proving.proven)
    raise typer.Exit(Ending.UNPROVEN if weak else Ending.DONE)


@contextlib.contextmanager
def _progress(proving: Proving) -> Iterator[None]:
    """Show the counts on the terminal while it works; nothing where there is none."""
    if not sys.stderr.isatty():
        yield
        return
    from rich.console import Console
    from rich.live import Live

    console = Console(stderr=True)
    told = sys.stdout.isatty()  # else what is redirected must not be drawn on the terminal
    with Live(
        _Counts(lambda: proving.proven),
        console=console,
        refresh_per_second=2,
        transient=True,
        redirect_stdout=told,
        redirect_stderr=True,
    ):
        yield


class _Counts:
    """One line, made anew each time that it is drawn."""

    def __init__(self, proven: Callable[[], list[Proven]]) -> None:
        self._proven = proven

    def __rich__(self) -> Text:
        """Give the counts of the flow at hand."""
        from rich.text import Text

        words = "…"
        if proven := self._proven():
            one = proven[-1]
            words = f"{one.flow}: {one.objects:,} looked at, {one.proofs.total():,} proven"
            words += f", {one.different:,} differ, {one.unproven:,} not proven"
        return Text(words, no_wrap=True, overflow="ellipsis")

"""`s3flow audit`: check the trail of what was done, and give it out."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from s3flow.commands.start import DEFAULT_CONFIG, Config, load_settings, run_async
from s3flow.errors import ConfigError

if TYPE_CHECKING:
    from s3flow.config import Settings
    from s3flow.state.audit import Check, Head
    from s3flow.state.store import SqlState

audit = typer.Typer(no_args_is_help=True, help="Check the trail of what was done, or give it out.")
Chosen = Annotated[
    list[str] | None,
    typer.Option(
        "--flow", "-f", help="Only this flow, which may be gone or forgotten; repeatable."
    ),
]


class Format(StrEnum):
    """How rows are written."""

    JSONL = "jsonl"
    CSV = "csv"


@audit.command()
def verify(
    config: Config = DEFAULT_CONFIG,
    flow: Chosen = None,
    head: Annotated[
        str | None,
        typer.Option(
            help="SEQ:HASH as it was printed earlier: this row of the flow must still be there."
        ),
    ] = None,
    file: Annotated[
        Path | None, typer.Option(help="Check an export instead of the state.", dir_okay=False)
    ] = None,
) -> None:
    """Check that no row of the trail was changed, moved or taken out; exits with 1 if one was.

    An end that was cut off, or a trail that was written anew as a whole, is found only with a head
    that was kept elsewhere.
    """
    from s3flow.process import Ending

    async def main() -> dict[str, Check]:
        if file is not None:
            return _check_file(file, flow or [], head)
        return await _check_state(load_settings(config, None)[0], flow or [], head)

    checks = run_async(main())
    for name, check in checks.items():
        typer.echo(_verdict(name, check))
    if not checks:
        typer.echo("there is no audit trail", err=True)
    intact = all(check.broken is None for check in checks.values())
    raise typer.Exit(Ending.DONE if intact else Ending.SOME_FAILED)


def _verdict(name: str, check: Check) -> str:
    if check.broken is not None:
        return f"{name}: BROKEN at row {check.broken.seq:,}: {check.broken.finding}"
    rows = check.head.seq - check.first + 1 if check.head.seq else 0
    since = ""
    if check.first > 1:
        since = f" from {check.first:,} on, whose content only the row before it could prove"
    return f"{name}: {rows:,} rows{since}, intact, head {check.head}"


@audit.command()
def export(
    config: Config = DEFAULT_CONFIG,
    flow: Chosen = None,
    as_what: Annotated[Format, typer.Option("--format", help="Lines of JSON, or CSV.")] = (
        Format.JSONL
    ),
    since: Annotated[int, typer.Option(min=1, help="Begin with the row of this number.")] = 1,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="A file; else the terminal.")
    ] = None,
) -> None:
    """Give out the trail: one line for each fact. `s3flow audit verify --file` checks it."""
    settings, _ = load_settings(config, None)
    for name, (rows, last) in run_async(
        _export(settings, flow or [], as_what, since, output)
    ).items():
        typer.echo(f"{name}: {rows:,} rows, head {last}", err=True)


async def _export(
    settings: Settings, flows: list[str], as_what: Format, since: int, output: Path | None
) -> dict[str, tuple[int, Head]]:
    from s3flow.commands.output import written
    from s3flow.state.audit_files import csv_header, csv_lines, json_lines
    from s3flow.state.reading import audit_pages

    lines = csv_lines if as_what is Format.CSV else json_lines
    done = {}
    async with _opened(settings) as state:
        heads = await _heads(state, flows)
        with written(output) as out:
            if as_what is Format.CSV:
                out.write(csv_header())
            for name, head in heads.items():
                count = 0
                async for rows in audit_pages(state, name, since - 1, head.seq):
                    out.write(lines(rows))
                    count += len(rows)
                done[name] = (count, head)
    return done


async def _check_state(settings: Settings, flows: list[str], kept: str | None) -> dict[str, Check]:
    from s3flow.state.audit import Check
    from s3flow.state.reading import audit_pages

    if kept and len(flows) != 1:
        raise ConfigError("--head is of one flow: name it with --flow")
    checks = {}
    async with _opened(settings) as state:
        # First: what a daemon adds meanwhile is for the next time.
        for name, head in (await _heads(state, flows)).items():
            check = checks[name] = Check(_kept(kept))
            async for rows in audit_pages(state, name, 0, head.seq):
                check.rows(rows)
                if check.broken:
                    break
            check.end(head)
    return checks


def _check_file(file: Path, flows: list[str], kept: str | None) -> dict[str, Check]:
    from s3flow.state.audit_files import check_export

    if kept and len(flows) != 1:
        raise ConfigError("--head is of one flow: name it with --flow")
    head = _kept(kept)
    try:
        with file.open(encoding="utf-8", newline="") as lines:
            checks = check_export(lines, {flows[0]: head} if head else {})
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read {file}: {error}") from error
    missing = sorted(set(flows) - set(checks))
    if missing:
        raise ConfigError(f"{file} has nothing of flow {', '.join(missing)}")
    chosen = {name: check for name, check in checks.items() if not flows or name in flows}
    for check in chosen.values():
        check.end()
    return chosen


def _kept(text: str | None) -> Head | None:
    from s3flow.state.audit import parse_head

    if not text:
        return None
    try:
        return parse_head(text)
    except ValueError as error:
        raise ConfigError(f"--head {text!r} is not SEQ:HASH as `audit verify` prints it") from error


@asynccontextmanager
async def _opened(settings: Settings) -> AsyncIterator[SqlState]:
    from s3flow.operations import known_state

    state = await known_state(settings)
    if state is None:
        raise ConfigError(f"there is no state yet at {settings.daemon.state_address}")
    try:
        yield state
    finally:
        await state.close()


async def _heads(state: SqlState, flows: list[str]) -> dict[str, Head]:
    """Give the chosen trails, or all, with their last rows."""
    heads = await state.audited()
    unknown = sorted(set(flows) - set(heads))
    if unknown:
        known = ", ".join(heads) or "none"
        raise ConfigError(f"there is no audit trail of {', '.join(unknown)}; there are: {known}")
    return {name: head for name, head in heads.items() if not flows or name in flows}

"""`s3flow report --certificate` and `--check`: whether everything arrived, to be filed."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import typer

from s3flow.commands.output import written
from s3flow.commands.start import fail, run_async
from s3flow.errors import ConfigError
from s3flow.process import Ending

if TYPE_CHECKING:
    from s3flow.config import Settings
    from s3flow.model import Flow
    from s3flow.observe.certificate import Certificate
    from s3flow.ports import StateStore


def certify(settings: Settings, flows: Sequence[Flow], output: Path | None) -> NoReturn:
    """Write the certificate; exits with 1 unless each object that the flows take has arrived."""

    async def main() -> Certificate:
        from s3flow.operations import known_state

        state = await known_state(settings)
        if state is None:
            raise ConfigError("nothing has run yet: there is nothing to certify")
        try:
            return await _write(state, flows, output)
        finally:
            await state.close()

    done = run_async(main())
    if done.complete:
        raise typer.Exit(Ending.DONE)
    why = f"{done.missing:,} of {done.objects:,} objects have not arrived"
    if not done.missing:
        why = "the source was not listed to its end"
    typer.echo(f"s3flow: the certificate is of an incomplete state: {why}", err=True)
    raise typer.Exit(Ending.SOME_FAILED)


async def _write(state: StateStore, flows: Sequence[Flow], output: Path | None) -> Certificate:
    from s3flow.observe.certificate import Certificate, Standing
    from s3flow.state.reading import record_pages

    standings = []
    for flow in flows:
        totals, scan = await state.totals(flow.name), await state.last_scan(flow.name)
        listed, size = sum(it.objects for it in totals), sum(it.bytes for it in totals)
        standings.append(Standing(flow, listed, size, scan.finished, scan.unfinished))
    certificate = Certificate(time.time())
    with written(output) as out:
        out.write(certificate.header(standings))
        for flow in flows:
            async for records in record_pages(state, flow.name):
                out.write(certificate.lines(flow.name, records))
        out.write(certificate.end())
    return certificate


def check_certificate(file: Path) -> NoReturn:
    """Compare a certificate with its digest; exits with 1 if it was changed, or is incomplete."""
    from s3flow.observe.certificate import check

    try:
        with file.open(encoding="utf-8", newline="") as lines:
            found = check(iter(lines))
    except (OSError, UnicodeDecodeError) as error:
        fail(ConfigError(f"cannot read {file}: {error}"))
    if found.problem:
        typer.echo(f"{file}: NOT as it was written: {found.problem}")
        raise typer.Exit(Ending.SOME_FAILED)
    state = "all that was listed has arrived" if found.complete else "INCOMPLETE by its own words"
    typer.echo(f"{file}: {found.objects:,} objects, {state}, sha256 {found.digest}")
    raise typer.Exit(Ending.DONE if found.complete else Ending.SOME_FAILED)

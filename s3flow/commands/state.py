"""`s3flow state`: carry the state from one database to another, and bring its schema up to date."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from s3flow.commands.start import DEFAULT_CONFIG, Config, load_settings, run_async
from s3flow.errors import ConfigError

if TYPE_CHECKING:
    from s3flow.config import Settings

state = typer.Typer(
    no_args_is_help=True, help="Carry the state to another database, or upgrade its schema."
)


@state.command("export")
def export_state(
    file: Annotated[Path, typer.Argument(help="The file to write.", dir_okay=False)],
    config: Config = DEFAULT_CONFIG,
) -> None:
    """Write all that the state knows into a file, audit trail and all. The daemon must be stopped."""
    settings, _ = load_settings(config, None)
    rows = run_async(_export(settings, file))
    typer.echo(f"{file}: {rows:,} rows of {settings.daemon.state_address}")


@state.command("import")
def import_file(
    file: Annotated[Path, typer.Argument(help="A file of `s3flow state export`.", dir_okay=False)],
    config: Config = DEFAULT_CONFIG,
) -> None:
    """Fill an empty state from a file: all of it, or nobody opens what there is of it."""
    settings, _ = load_settings(config, None)
    counts = run_async(_import(settings, file))
    told = ", ".join(f"{counts.get(name, 0):,} {name}" for name in ("flows", "objects", "audit"))
    typer.echo(f"{settings.daemon.state_address}: {sum(counts.values()):,} rows: {told}")


@state.command()
def upgrade(config: Config = DEFAULT_CONFIG) -> None:
    """Bring the state's schema up to date; the daemon does the same when it starts."""
    settings, _ = load_settings(config, None)
    before, after = run_async(_upgrade(settings))
    where = settings.daemon.state_address
    if not before:
        typer.echo(f"{where}: made with schema {after}")
    elif before == after:
        typer.echo(f"{where}: schema {after} is up to date")
    else:
        typer.echo(f"{where}: brought from schema {before} to {after}")


async def _export(settings: Settings, file: Path) -> int:
    from s3flow.commands.output import written
    from s3flow.state.opening import open_holds, open_state, schema_version
    from s3flow.state.transport import exported

    address, rows = settings.daemon.state_address, -2  # the first line and the last are none
    if (await schema_version(address))[0] == 0:
        raise ConfigError(f"there is no state yet at {address}")
    # For writing, though nothing is written: what is exported must stand still.
    source = await open_state(address)
    try:
        holds, kept = open_holds(address), {}
        for name in sorted({*await source.flow_names(), *(flow.name for flow in settings.flows)}):
            if (hold := await holds.get(name)) is not None:
                kept[name] = hold
        with written(file) as out:
            async for text in exported(source.database, kept):
                out.write(text)
                rows += text.count("\n")
    finally:
        await source.close()
    return rows


async def _import(settings: Settings, file: Path) -> dict[str, int]:
    from s3flow.state.opening import open_holds, open_state
    from s3flow.state.transport import import_state

    try:
        lines = file.open(encoding="utf-8", newline="")
    except OSError as error:
        raise ConfigError(f"cannot read {file}: {error.strerror}") from error
    with lines:
        address = settings.daemon.state_address
        target = await open_state(address, partial=True)
        try:
            return await import_state(target.database, lines, open_holds(address).put)
        except UnicodeDecodeError as error:
            raise ConfigError(f"{file} is no export of a state: it is not UTF-8") from error
        finally:
            await target.close()


async def _upgrade(settings: Settings) -> tuple[int, int]:
    from s3flow.state.opening import open_state, schema_version

    address = settings.daemon.state_address
    before, after = await schema_version(address)
    opened = await open_state(address, partial=True)
    await opened.close()
    return before, after

"""What every command begins with: its options, the configuration, and how errors end it."""

from __future__ import annotations

from collections.abc import Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, TypeVar

import typer

from s3flow.errors import Blocked, ConfigError, S3flowError, StateAway, StateLocked

if TYPE_CHECKING:
    from s3flow.config import Settings
    from s3flow.model import Flow

Config = Annotated[
    Path,
    typer.Option("--config", "-c", envvar="S3FLOW_CONFIG", help="The configuration file (TOML)."),
]
Flows = Annotated[
    list[str] | None, typer.Option("--flow", "-f", help="Only this flow; may be repeated.")
]
Result = TypeVar("Result")
DEFAULT_CONFIG = Path("/etc/s3flow/config.toml")


def fail(error: BaseException) -> NoReturn:
    """Say what is wrong and exit; a defect keeps its traceback."""
    from s3flow.observe.text import shown
    from s3flow.process import Ending

    running = isinstance(error, BaseExceptionGroup)  # the daemon's tasks: it had begun
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if not isinstance(error, S3flowError):
        raise error
    typer.echo(f"s3flow: {shown(str(error), 20_000, keep=chr(10))}", err=True)
    if isinstance(error, StateLocked):
        raise typer.Exit(Ending.LOCKED)
    # What breaks on the way, or is not mounted yet, may work at the next start; supervisors leave
    # alone what ends with 2.
    again = isinstance(error, Blocked | StateAway) or (
        running and not isinstance(error, ConfigError)
    )
    raise typer.Exit(Ending.INTERRUPTED if again else Ending.USAGE)


def load_settings(config: Path, names: list[str] | None) -> tuple[Settings, list[Flow]]:
    """Read the configuration; enough for commands that ask the state alone: they log nothing."""
    from s3flow.config import load

    try:
        settings = load(config)
        flows = settings.chosen_flows(names or [])
    except S3flowError as error:
        fail(error)
    for warning in settings.warnings:
        typer.echo(f"s3flow: warning: {warning}", err=True)
    return settings, flows


def load_and_log(config: Path, names: list[str] | None) -> tuple[Settings, list[Flow]]:
    """Read the configuration, and let what the stores and the engine log be shown as it says."""
    settings, flows = load_settings(config, names)
    from s3flow.observe import logs

    daemon = settings.daemon
    logs.configure(daemon.log_format, daemon.log_level, settings.secrets())
    return settings, flows


def run_async(main: Coroutine[Any, Any, Result]) -> Result:
    """Run *main* to its end; what it raises ends the command."""
    from s3flow import process

    try:
        return process.run_async(main)
    except Exception as error:  # noqa: BLE001  sorted into messages and defects there
        fail(error)

"""s3flow and the bare protocol, as contenders."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import sys
from pathlib import Path

from tests.bench.cases import CannotError, Command, Kind, Scene
from tests.bench.state import QUICK_ROWS, ROWS, prepared_state

ROOT = Path(__file__).parents[2]
_CONFIG = """\
[daemon]
state = "sqlite:///state.db"
listen = "off"
log_format = "json"

[endpoints.old]
{endpoint}
[endpoints.new]
{endpoint}
[endpoints.disk]
type = "local"
path = "{disk}"

[[flows]]
name = "bench"
source = "old:{source}/"
target = "{target}"
method = "{method}"
part_size = "16MiB"
"""
_ENDPOINT = """\
type = "s3"
url = "{url}"
addressing = "path"
access_key_id = "${{BENCH_KEY}}"
secret_access_key = "${{BENCH_SECRET}}"
"""


def environment() -> dict[str, str]:
    """Give a small environment without this machine's cloud settings."""
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "HOME") if name in os.environ}
    return {**kept, "PYTHONPATH": str(ROOT)}


class S3flow:
    """The product: default settings, state in SQLite, a proof for every object.

    *workers*: processes that move the bytes; the table names it where there are several.
    """

    def __init__(self, workers: int = 1) -> None:
        self.name = "s3flow" if workers == 1 else f"s3flow x{workers}"
        self._workers = workers

    def version(self) -> str:
        """Give the version, with the commit's id if there is one."""
        from s3flow import __version__

        return __version__

    def command(self, scene: Scene) -> Command:
        """Write the configuration of a run with a fresh state, and give the command."""
        kind = scene.case.kind
        self._write_config(scene)
        self._fresh_state(scene)
        verb = "scan" if kind in {Kind.SCAN, Kind.RESCAN} else "sync"
        return Command(
            self._argv(scene, verb),
            self._env(scene),
            "defaults, SQLite state, every object proven"
            + (", files fsynced" if kind is Kind.TO_DISK else ""),
        )

    def has_scanned(self, scene: Scene) -> bool:
        """Say whether the state of a first scan is there for a second one."""
        return (scene.folder / "scanned.db").exists()

    def check(self, scene: Scene) -> None:
        """Hold the state against the objects: one row each, in one outcome, with a proof.

        Raises `AssertionError`.
        """
        kind = scene.case.kind
        path = scene.folder / "state.db"
        state = sqlite3.connect(path)
        try:
            rows = state.execute(
                "SELECT state, proof, count(*) FROM inventory GROUP BY 1, 2"
            ).fetchall()
        finally:
            state.close()
        found = {(name, proof): count for name, proof, count in rows}
        if kind in {Kind.SCAN, Kind.RESCAN}:
            assert found == {("discovered", ""): scene.objects.count}, found
            if kind is Kind.SCAN:
                shutil.copyfile(path, scene.folder / "scanned.db")
        elif kind is not Kind.RESTART:
            verified = sum(count for (name, _), count in found.items() if name == "verified")
            assert verified == scene.objects.count, found
            assert not any(proof in {"", "size"} for _, proof in found), found

    def _argv(self, scene: Scene, verb: str) -> tuple[str, ...]:
        config = str(scene.folder / "config.toml")
        return (sys.executable, "-m", "s3flow", verb, "-c", config)

    def _env(self, scene: Scene) -> dict[str, str]:
        return {
            **environment(),
            "BENCH_KEY": scene.access_key,
            "BENCH_SECRET": scene.secret_key,
            "S3FLOW__DAEMON__WORKERS": str(self._workers),
        }

    def _write_config(self, scene: Scene) -> None:
        endpoint = _ENDPOINT.format(url=scene.url)
        if scene.ca_file:
            endpoint += f"ca_file = {json.dumps(str(scene.ca_file))}\n"
        is_local = scene.case.kind is Kind.TO_DISK
        text = _CONFIG.format(
            endpoint=endpoint,
            disk=scene.disk,
            source=scene.source,
            target="disk:" if is_local else f"new:{scene.target}/",
            # Both ends are one server here, so what is to be streamed must be said.
            method="server-only" if scene.case.kind is Kind.SERVER_COPY else "stream-only",
        )
        config = scene.folder / "config.toml"
        config.write_text(text)
        config.chmod(0o600)

    def _fresh_state(self, scene: Scene) -> None:
        for left in scene.folder.glob("state.db*"):
            left.unlink()
        if scene.case.kind is Kind.RESCAN:
            shutil.copyfile(scene.folder / "scanned.db", scene.folder / "state.db")
        elif scene.case.kind is Kind.RESTART:
            rows = QUICK_ROWS if scene.objects.name == scene.case.quick else ROWS
            made = prepared_state(scene, rows, self._argv(scene, "scan"), self._env(scene))
            for left in scene.folder.glob("state.db*"):
                left.unlink()
            shutil.copyfile(made, scene.folder / "state.db")


class Floor:
    """The bare protocol: GET and PUT with s3flow's wire, no state, no engine, no proofs."""

    name = "floor"

    def version(self) -> str:
        """Give nothing: it is of this commit."""
        return ""

    def command(self, scene: Scene) -> Command:
        """Give the command."""
        if scene.case.kind not in {Kind.TO_S3, Kind.TO_DISK}:
            raise CannotError("the bare protocol only GETs and PUTs")
        where = ("--disk", str(scene.disk)) if scene.case.kind is Kind.TO_DISK else ()
        ca = ("--ca", str(scene.ca_file)) if scene.ca_file else ()
        index = scene.folder / "index.tsv"
        return Command(
            (
                *(sys.executable, "-m", "tests.bench.floor", "--url", scene.url, *ca, *where),
                *("--index", str(index), "--source", scene.source, "--target", scene.target),
            ),
            {**environment(), "BENCH_KEY": scene.access_key, "BENCH_SECRET": scene.secret_key},
            "s3flow.wire alone, 64 at once, parts of 16 MiB",
        )

    def check(self, scene: Scene) -> None:
        """Nothing beyond what the target holds."""

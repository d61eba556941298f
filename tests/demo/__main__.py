"""Move real objects between two accounts and to disk, stop half-way, go on, and compare every byte."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from botocore.client import BaseClient
from rich.console import Console
from rich.table import Table

from tests.demo import compare, objects
from tests.servers import Server, ServerMissingError, make_bucket, ministack

STOPPED_EARLY = 75  # EX_TEMPFAIL: what is left is done by starting again
SLOW = str(12 * 1024 * 1024)  # bytes a second: leaves the first run something to be stopped in
RUN_SECONDS = 600  # far beyond what a run needs: a hang ends with a message

CONFIG = """\
[daemon]
state = "sqlite:///state.db"
listen = "off"

[endpoints.ours]
type = "s3"
url = "{url}"
addressing = "path"
access_key_id = "${{DEMO_OURS_KEY}}"
secret_access_key = "${{DEMO_OURS_SECRET}}"

[endpoints.theirs]
type = "s3"
url = "{url}"
addressing = "path"
access_key_id = "${{DEMO_THEIRS_KEY}}"
secret_access_key = "${{DEMO_THEIRS_SECRET}}"

[endpoints.disk]
type = "local"
path = "{disk}"

[[flows]]
name = "account-to-account"
source = "ours:{source}/"
target = "theirs:{target}/"
method = "stream-only"
multipart_threshold = "16MiB"
part_size = "8MiB"

[[flows]]
name = "account-to-disk"
source = "ours:{source}/"
target = "disk:backup/"
exclude = ["{only_in_stores}**"]
multipart_threshold = "16MiB"
part_size = "8MiB"
"""

console = Console()


class Scene(NamedTuple):
    """Everything that the demo's steps share."""

    config: Path
    environ: dict[str, str]
    disk: Path
    ours: BaseClient
    theirs: BaseClient
    source: str
    target: str


class DemoError(Exception):
    """Something did not go as it should."""


def say(step: str) -> None:
    """Announce what happens next."""
    console.print(f"\n[bold]== {step}[/bold]", highlight=False)


def s3flow(scene: Scene, command: str, **extra: str) -> subprocess.Popen[bytes]:
    """Start an s3flow command on the demo's configuration, with the terminal passed through."""
    settings = "".join(f"{name}={text} " for name, text in extra.items())
    console.print(f"[dim]$ {settings}s3flow {command} --config config.toml[/dim]", highlight=False)
    program = (sys.executable, "-m", "s3flow", command, "--config", str(scene.config))
    return subprocess.Popen(program, env=scene.environ | extra)


def finish(process: subprocess.Popen[bytes], expected: int) -> None:
    """Wait for an s3flow command and check its exit status."""
    try:
        status = process.wait(RUN_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        raise DemoError(f"s3flow did not end within {RUN_SECONDS} s") from None
    console.print(f"[dim]exit status {status}[/dim]", highlight=False)
    if status != expected:
        raise DemoError(f"s3flow ended with {status}, expected {expected}")


def prepare(server: Server, folder: Path, stack: contextlib.ExitStack) -> Scene:
    """Fill the first account's bucket and write the configuration."""
    ours = stack.enter_context(contextlib.closing(server.client(0)))
    theirs = stack.enter_context(contextlib.closing(server.client(1)))
    source, target = make_bucket(server, 0, name="ours"), make_bucket(server, 1, name="theirs")
    count = total = 0
    for sample in objects.samples():
        objects.put(ours, source, sample)
        count, total = count + 1, total + sample.size
    console.print(f"{count} objects, {mib(total)}, in account {server.accounts[0].access_key}")
    config, disk = folder / "config.toml", folder / "disk"
    disk.mkdir()
    values = {"url": server.url, "disk": disk, "source": source, "target": target}
    config.write_text(CONFIG.format(**values, only_in_stores=objects.ONLY_IN_STORES))
    config.chmod(0o600)
    console.print(config.read_text(), style="cyan", markup=False, highlight=False)
    environ = {name: text for name, text in os.environ.items() if not name.startswith("AWS_")}
    for name, account in zip(("OURS", "THEIRS"), server.accounts, strict=True):
        environ[f"DEMO_{name}_KEY"] = account.access_key
        environ[f"DEMO_{name}_SECRET"] = account.secret_key
    return Scene(config, environ, disk, ours, theirs, source, target)


def interrupt(scene: Scene) -> None:
    """Run slowly, and send SIGTERM when a third of the objects has arrived."""
    process = s3flow(scene, "sync", S3FLOW__DAEMON__MAX_BYTES_PER_S=SLOW)
    enough = sum(1 for _ in objects.samples()) // 3
    try:
        while process.poll() is None:
            if sum(1 for _ in compare.keys_of(scene.theirs, scene.target)) >= enough:
                process.send_signal(signal.SIGTERM)
                break
            time.sleep(0.1)
        finish(process, STOPPED_EARLY)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    arrived = sum(1 for _ in compare.keys_of(scene.theirs, scene.target))
    unfinished = scene.theirs.list_multipart_uploads(Bucket=scene.target).get("Uploads", [])
    console.print(f"{arrived} objects had arrived; {len(unfinished)} upload(s) wait for the rest")


def status(scene: Scene) -> list[dict[str, dict[str, int]]]:
    """Give what `s3flow status --json` says of the flows."""
    program = (sys.executable, "-m", "s3flow", "status", "--json", "--config", str(scene.config))
    done = subprocess.run(program, env=scene.environ, stdout=subprocess.PIPE, check=False)
    if done.returncode:
        raise DemoError(f"s3flow status --json ended with {done.returncode}")
    flows: list[dict[str, dict[str, int]]] = json.loads(done.stdout)["flows"]
    return flows


def mib(count: int) -> str:
    """Give *count* bytes in MiB."""
    return f"{count / objects.MIB:.1f} MiB"


def report(flows: list[dict[str, dict[str, int]]]) -> list[str]:
    """Print s3flow's own account; give what is wrong with it."""
    table = Table("flow", "objects", "bytes", "methods", "proofs", title="s3flow's own account")
    wrong = []
    for flow in flows:
        counts = flow["objects"]
        words = [f"{number} {name}" for name, number in counts.items() if number]
        ways = [
            "\n".join(f"{count} {name}" for name, count in sorted(flow[column].items()))
            for column in ("methods", "proofs")
        ]
        table.add_row(str(flow["name"]), "\n".join(words), mib(flow["bytes"]["verified"]), *ways)
        outcomes = sum(count for name, count in counts.items() if name != "listed")
        if outcomes != counts["listed"]:
            wrong.append(f"{flow['name']}: listed {counts['listed']}, accounted for {outcomes}")
        if counts["pending"] or counts["failed"]:
            wrong.append(f"{flow['name']}: {counts['pending']} pending, {counts['failed']} failed")
    console.print(table)
    return wrong


def check(scene: Scene) -> list[str]:
    """Compare every byte with a client of our own; give the differences."""
    found = {
        "account-to-account": compare.with_bucket(
            scene.ours, scene.source, scene.theirs, scene.target
        ),
        "account-to-disk": compare.with_folder(
            scene.ours, scene.source, scene.disk / "backup", without=objects.ONLY_IN_STORES
        ),
    }
    table = Table("flow", "objects", "bytes", "differences", title="Compared independently")
    for name, finding in found.items():
        table.add_row(name, str(finding.objects), mib(finding.bytes), str(len(finding.differences)))
    console.print(table)
    wrong = [f"{name}: {text}" for name, finding in found.items() for text in finding.differences]
    left = scene.theirs.list_multipart_uploads(Bucket=scene.target).get("Uploads", [])
    return wrong + [f"unfinished upload left behind: {upload['Key']!r}" for upload in left]


def play(folder: Path) -> list[str]:
    """Go through the whole demo in *folder*; give everything that went wrong."""
    with contextlib.ExitStack() as stack:
        say("Two accounts on a real S3 server; the first one's bucket is filled")
        server = stack.enter_context(ministack())
        scene = prepare(server, folder, stack)
        say("A slow run, interrupted by SIGTERM when part of the work is done")
        interrupt(scene)
        say("What the state says now")
        finish(s3flow(scene, "status"), 0)
        say("Started again: it goes on with what is missing")
        finish(s3flow(scene, "sync"), 0)
        say("Is it all there?")
        return report(status(scene)) + check(scene)


def main() -> int:
    """Play the demo and give the exit status."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="s3flow-demo-") as folder:
        try:
            wrong = play(Path(folder))
        except (DemoError, ServerMissingError) as error:
            wrong = [str(error)]
    for text in wrong:
        console.print(text, style="red", markup=False, highlight=False)
    verdict = (
        f"{len(wrong)} thing(s) went wrong" if wrong else "every object and every byte is there"
    )
    console.print(f"\n[bold]{verdict}[/bold], {time.monotonic() - began:.0f} s", highlight=False)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())

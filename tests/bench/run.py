"""`make bench`: the same objects on the same server, s3flow and each peer in turn, round after round."""

from __future__ import annotations

import argparse
import contextlib
import os
import platform
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console

from tests.bench import check, markdown, measure, picture, report, targets
from tests.bench.cases import CASES, CannotError, Case, Command, Kind, Scene
from tests.bench.folders import fresh_folder
from tests.bench.objects import describe, prepare
from tests.bench.ours import Floor, S3flow
from tests.bench.peers import PEERS, Contender
from tests.bench.real import real
from tests.bench.server import Endpoint, nginx
from tests.integration.servers_real import cache
from tests.servers import ServerFailedError, ServerMissingError

RESULTS = Path(__file__).parent / "results"
ROUNDS, QUICK_ROUNDS = 5, 2
DOES_NOT_COUNT = "does not count"
ONLY_NGINX = frozenset({Kind.SCAN, Kind.RESCAN, Kind.RESTART})  # made listings, a look inside
console = Console(width=None if sys.stdout.isatty() else 120)


def contenders(names: Sequence[str], workers: Sequence[int] = ()) -> list[Contender]:
    """Make the contenders, or those named; s3flow once more for each number of *workers*."""
    found: list[Contender] = [S3flow(), *map(S3flow, workers), Floor(), *PEERS]
    return [c for c in found if not names or c.name.split()[0] in names]


class Bench:
    """Runs cases against one running server."""

    def __init__(
        self, server: Endpoint, data: Path, scratch: Path, options: argparse.Namespace
    ) -> None:
        self._server = server
        self._data = data
        self._scratch = scratch
        self._options = options
        self._rounds = options.rounds or (QUICK_ROUNDS if options.quick else ROUNDS)

    def run_case(self, case: Case, *, tls: bool) -> report.CaseResult:
        """Run all contenders, A B A B …; those that fail once are out, and the table says why."""
        objects = case.objects(quick=self._options.quick)
        title = case.title_of(quick=self._options.quick)
        found = report.CaseResult(
            case.name,
            title,
            f"{self._server.name}, {'TLS' if tls else 'HTTP'}",
            objects.count,
            objects.size,
            quick=self._options.quick,
        )
        racers: list[tuple[Contender, report.Result]] = []
        only = [report.OURS] if case.ours_only else self._options.only
        for contender in contenders(only, self._options.s3flow_workers):
            result = report.Result(contender.name, contender.version(), "")
            racers.append((contender, result))
            found.results.append(result)
        for number in range(1, self._rounds + 1):
            for contender, result in racers:
                if not result.problem:
                    self._run_once(contender, result, self.scene(case, contender, tls=tls), number)
        return found

    def scene(self, case: Case, contender: Contender, *, tls: bool) -> Scene:
        """Prepare the folders of a run."""
        objects = case.objects(quick=self._options.quick)
        folder = (
            self._scratch
            / f"{case.name}-{contender.name.replace(' ', '-')}-{'tls' if tls else 'http'}"
        )
        folder.mkdir(exist_ok=True)
        disk = fresh_folder(folder)
        shutil.copyfile(self._data / objects.name / "index.tsv", folder / "index.tsv")
        return Scene(
            case,
            objects,
            self._server.url(tls=tls),
            self._server.usual_url(tls=tls),
            self._server.ca_file if tls else None,
            self._server.access_key,
            self._server.secret_key,
            objects.name,
            f"to-{objects.name}",
            folder,
            disk,
        )

    def _run_once(
        self, contender: Contender, result: report.Result, scene: Scene, number: int
    ) -> None:
        name = f"{scene.case.name} {contender.name}, round {number}"
        log = scene.folder / "output"
        try:
            command = self.prepared_command(contender, scene)
            self._server.reset()
            os.sync()  # what an earlier contender left to write is not this one's to wait for
            server_before, began = self._server.cpu_seconds(), time.time()
            run = measure.run(command.argv, command.env, scene.folder, log)
            run = replace(run, server_cpu=self._server.cpu_seconds() - server_before)
            if scene.case.kind is Kind.RESTART:
                run = replace(run, wall=self._server.first_byte() - began)
            self._verify(contender, scene, run, is_last=number == self._rounds)
        except CannotError as reason:
            result.problem = str(reason)
            return
        except AssertionError as wrong:
            tail = log.read_bytes()[-600:].decode(errors="replace") if log.exists() else ""
            result.problem = f"{DOES_NOT_COUNT}: {wrong} {tail.strip()}"
            console.print(f"{name}: {result.problem}", style="red", markup=False)
            return
        result.settings = command.settings
        result.runs.append(run)
        console.print(
            f"{name}: {run.wall:.2f} s, CPU {run.user:.2f} + {run.system:.2f} s,"
            f" {run.peak / report.MIB:.0f} MiB, server {run.server_cpu:.2f} s",
            highlight=False,
        )

    def prepared_command(self, contender: Contender, scene: Scene) -> Command:
        """Give a run's command. Raises `CannotError`; `AssertionError` when a first scan fails."""
        if (
            scene.case.kind is Kind.RESCAN
            and isinstance(contender, S3flow)
            and not contender.has_scanned(scene)
        ):
            self._scan_first(contender, scene)
        return contender.command(scene)

    def _verify(
        self, contender: Contender, scene: Scene, run: measure.Run, *, is_last: bool
    ) -> None:
        """Raise `AssertionError` unless the run counts."""
        assert run.exit_code == 0, f"exit code {run.exit_code}"
        contender.check(scene)
        if scene.case.kind in {Kind.TO_S3, Kind.SERVER_COPY}:
            held = self._server.held(scene.target)
            assert held.equal == scene.objects.count, f"the target holds {held}"
            assert held.bytes == scene.objects.size, f"the target holds {held}"
        elif scene.case.kind is Kind.TO_DISK:
            described = describe(self._data, scene.objects.name)
            check.files(scene.disk, described)
            sample = described if is_last else random.sample(described, min(64, len(described)))
            check.contents(
                scene.disk, sample if is_last or scene.objects.count > 64 else sample[:1]
            )

    def _scan_first(self, contender: S3flow, scene: Scene) -> None:
        first = replace(scene, case=CASES["scan"])
        command = contender.command(first)
        run = measure.run(command.argv, command.env, scene.folder, scene.folder / "output")
        assert run.exit_code == 0, f"the first scan ended with {run.exit_code}"
        contender.check(first)


def about(options: argparse.Namespace) -> dict[str, str]:
    """Say where and when this was measured."""
    versions = {f"version of {c.name}": c.version() for c in contenders(options.only)}
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "processor": f"{os.cpu_count()} x {model}",
        "kernel": platform.release(),
        "python": platform.python_version(),
        **versions,
    }


def parse(words: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.run", description=__doc__)
    parser.add_argument(
        "--case", action="append", choices=list(CASES), help="only this case; repeatable"
    )
    parser.add_argument(
        "--only", action="append", default=[], help="only this contender; repeatable"
    )
    parser.add_argument("--rounds", type=int, default=0, help=f"default {ROUNDS}")
    parser.add_argument("--quick", action="store_true", help="small cases, two rounds")
    parser.add_argument("--http", action="store_true", help="only plain HTTP")
    parser.add_argument("--tls", action="store_true", help="only TLS")
    parser.add_argument("--workers", type=int, default=2, help="processes of the server")
    parser.add_argument(
        "--s3flow-workers",
        type=int,
        action="append",
        default=[],
        help="run s3flow with so many worker processes as well; repeatable",
    )
    servers = ("nginx", "ceph", "versitygw", "minio")
    parser.add_argument("--server", choices=servers, default="nginx", help="default nginx")
    return parser.parse_args(words)


def main(words: Sequence[str]) -> int:
    """Run the cases; 1 when a run of s3flow itself did not count."""
    options = parse(words)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: what runs is ended
    # A quick run takes few keys anyway.
    every = [name for name, case in CASES.items() if not (options.quick and case.ours_only)]
    cases = [CASES[name] for name in options.case or every]
    if options.server != "nginx":
        cases = [case for case in cases if case.kind not in ONLY_NGINX]
    names = list(dict.fromkeys(case.objects(quick=options.quick).name for case in cases))
    data = prepare(cache() / "bench-objects", names)
    done: list[report.CaseResult] = []
    with (
        tempfile.TemporaryDirectory(prefix="run-", dir=cache()) as scratch,
        _server(options, data, names) as server,
        contextlib.suppress(KeyboardInterrupt),  # what is measured by then is still reported
    ):
        bench = Bench(server, data, Path(scratch), options)
        for case in cases:
            for tls in (False, True):
                if (options.http and tls) or (options.tls and not tls) or (tls > server.has_tls):
                    continue
                done.append(bench.run_case(case, tls=tls))
                report.show(console, done[-1])
                _say(targets.verdicts(done[-1], done))
    if done:
        _write(options, words, done)
    ours = [found.find(report.OURS) for found in done]
    problems = [r.problem for found in done for r in found.results if r.contender == report.OURS]
    return int(not any(ours) or any(text.startswith(DOES_NOT_COUNT) for text in problems))


def _server(
    options: argparse.Namespace, data: Path, names: list[str]
) -> contextlib.AbstractContextManager[Endpoint]:
    if options.server == "nginx":
        return nginx(data, options.workers)
    return real(options.server, data, names)


def _say(verdicts: Sequence[targets.Verdict]) -> None:
    for verdict in verdicts:
        console.print(f"  {verdict}", style="green" if verdict.met else "red", highlight=False)
    console.print()


def _write(
    options: argparse.Namespace, words: Sequence[str], done: Sequence[report.CaseResult]
) -> None:
    told = about(options) | {
        "rounds": str(max((len(r.runs) for found in done for r in found.results), default=0)),
        "command": " ".join(("make bench", *([f'BENCH="{" ".join(words)}"'] if words else []))),
    }
    RESULTS.mkdir(exist_ok=True)
    stem = RESULTS / datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    report.write_json(stem.with_suffix(".json"), told, done)
    stem.with_suffix(".md").write_text(markdown.document(told, done))
    below = f"{told['date'][:10]}, {told['processor']}, medians of {told['rounds']} rounds"
    stem.with_suffix(".svg").write_text(picture.picture(done, below))
    console.print("what is to be reached:", style="bold")
    for line in targets.summary(done):
        console.print(f"  {line}", highlight=False, soft_wrap=True)
    console.print(f"written: {stem}.json, .md and .svg", highlight=False, soft_wrap=True)


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except (ServerMissingError, ServerFailedError) as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)

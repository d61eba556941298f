"""`make profile CASE=…`: one run of s3flow under a sampling profiler, as a flame graph."""

from __future__ import annotations

import argparse
import collections
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from tests.bench.cases import CASES, Command
from tests.bench.flame import draw
from tests.bench.install import program
from tests.bench.objects import prepare
from tests.bench.ours import Floor, S3flow
from tests.bench.run import RESULTS, Bench
from tests.bench.run import parse as parse_bench
from tests.bench.server import nginx
from tests.integration.servers_real import cache

RATE = 500  # samples a second
SHOWN = 45  # functions


def _spy(command: Command, output: Path, *, native: bool, gil: bool) -> None:
    """Run *command* under py-spy, which writes folded stacks to *output*."""
    words = [program("py-spy"), "record", "--rate", str(RATE), "--format", "raw"]
    words += ["--output", str(output), *(["--native"] if native else [])]
    words += ["--gil"] if gil else []
    argv = [*words, "--", *command.argv]
    done = subprocess.run(argv, env=command.env, cwd=output.parent, check=False)
    if done.returncode:
        raise SystemExit(f"{argv[0]} ended with {done.returncode}: as root it may watch others")


def top(stacks: Path) -> list[str]:
    """Give the functions with the most samples, alone and with what they call, from folded stacks."""
    alone: collections.Counter[str] = collections.Counter()
    within: collections.Counter[str] = collections.Counter()
    total = 0
    for line in stacks.read_text().splitlines():
        stack, _, count = line.rpartition(" ")
        frames = [frame.rpartition(":")[0] or frame for frame in stack.split(";")]
        samples = int(count)
        total += samples
        alone[frames[-1]] += samples
        for frame in set(frames):
            within[frame] += samples
    lines = [f"{total} samples", "  alone  with callees"]
    for name, samples in alone.most_common(SHOWN):
        lines.append(f"{samples / total:7.1%} {within[name] / total:7.1%}  {name}")
    lines.append("by what they call:")
    lines += [f"{n / total:7.1%}  {name}" for name, n in within.most_common(SHOWN)]
    return lines


def main(words: Sequence[str]) -> int:
    """Profile one case."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.profiling", description=__doc__)
    parser.add_argument("case", choices=list(CASES))
    parser.add_argument("--http", action="store_true", help="plain HTTP instead of TLS")
    parser.add_argument("--quick", action="store_true", help="the smaller set")
    parser.add_argument("--floor", action="store_true", help="the bare protocol instead")
    parser.add_argument("--native", action="store_true", help="show C functions as well")
    parser.add_argument("--gil", action="store_true", help="only what holds Python's lock")
    options = parser.parse_args(words)
    case = CASES[options.case]
    contender = Floor() if options.floor else S3flow()
    data = prepare(cache() / "bench-objects", [case.objects(quick=options.quick).name])
    RESULTS.mkdir(exist_ok=True)
    stem = f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{contender.name}-{case.name}"
    with tempfile.TemporaryDirectory(prefix="run-", dir=cache()) as scratch, nginx(data) as server:
        bench = Bench(
            server, data, Path(scratch), parse_bench(["--quick"] if options.quick else [])
        )
        scene = bench.scene(case, contender, tls=not options.http)
        command = bench.prepared_command(contender, scene)
        folded = scene.folder / "stacks.txt"
        _spy(command, folded, native=options.native, gil=options.gil)
        stacks = RESULTS / f"{stem}.txt"
        shutil.copyfile(folded, stacks)
    picture = stacks.with_suffix(".svg")
    picture.write_text(draw(stacks.read_text().splitlines(), stem))
    print("\n".join(top(stacks)))
    print(f"written: {picture}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

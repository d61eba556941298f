"""What s3flow has to reach in each case, and whether it does."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tests.bench.report import FLOOR, MIB, OURS, CaseResult, short

MEMORY = 128.0  # MiB, in every case
FLAT = 1.1  # times the memory of the smaller set: no growth, but for what a process differs anyway


@dataclass(frozen=True, slots=True)
class Target:
    """Ratios to the best peer of each figure, or seconds; 0 where there is none.

    *flat* names the case with fewer keys whose memory must do for this one as well.
    """

    cpu: float = 0.0
    wall: float = 0.0
    cpu_seconds: float = 0.0
    wall_seconds: float = 0.0
    floor: float = 0.0  # CPU, in those of the bare protocol
    memory: float = 0.0
    flat: str = ""


TARGETS = {
    "small-s3": Target(cpu=1 / 3, wall=1 / 2, floor=3.0, memory=MEMORY),
    "small-disk": Target(cpu=1 / 2, wall=2 / 3, floor=3.0, memory=MEMORY),
    "large-s3": Target(cpu=0.5, wall=0.8, memory=MEMORY),
    "large-disk": Target(cpu=0.9, wall=0.9, memory=MEMORY),
    "copies": Target(cpu=1 / 3, wall=1 / 2, memory=MEMORY),
    "scan": Target(cpu_seconds=15.0, flat="scan-100k"),
    "rescan": Target(cpu_seconds=12.0, flat="rescan-100k"),
    "restart": Target(wall_seconds=3.0, memory=MEMORY),
}


@dataclass(frozen=True, slots=True)
class Verdict:
    """A figure beside its target. *reached* is as people read it, with its unit."""

    figure: str
    reached: str
    target: str
    excess: float  # times the target; up to 1 is met

    @property
    def met(self) -> bool:
        """Say whether the target is reached."""
        return self.excess <= 1.0

    def __str__(self) -> str:
        end = "met" if self.met else f"not met, {self.excess:.2f} times as much"
        return f"{self.figure} {self.reached} (target {self.target}): {end}"


def verdicts(found: CaseResult, others: Sequence[CaseResult]) -> list[Verdict]:
    """Hold a case's figures against its targets; *others* are the cases of the same run.

    The targets are for the whole sets: a quick run shows the same ratios and nothing absolute.
    """
    target, ours = TARGETS.get(found.case), found.find(OURS)
    if target is None or ours is None:
        return []
    made = [*_against_peers(found, target)]
    floor = found.find(FLOOR)
    if target.floor and floor:
        ratio = ours.median("cpu") / floor.median("cpu")
        made.append(_at_most("CPU", ratio, target.floor, "of the bare protocol's", 2))
    if not found.quick:
        for name, figure, most in (
            ("CPU", "cpu", target.cpu_seconds),
            ("first byte after", "wall", target.wall_seconds),
        ):
            if most:
                made.append(_at_most(name, ours.median(figure), most, "s", 1))
    if target.memory:
        made.append(_at_most("memory", ours.median("peak") / MIB, target.memory, "MiB", 0))
    fewer = next((o for o in others if o.case == target.flat and o.server == found.server), None)
    small = fewer.find(OURS) if fewer else None
    if small and not found.quick:
        ratio = ours.median("peak") / small.median("peak")
        made.append(_at_most("memory", ratio, FLAT, "of that with 100,000 keys", 2))
    return made


def _against_peers(found: CaseResult, target: Target) -> Iterator[Verdict]:
    ours = found.find(OURS)
    for name, figure, most in (("CPU", "cpu", target.cpu), ("wall", "wall", target.wall)):
        best = found.best_peer(figure)
        if most and best and ours:
            ratio = ours.median(figure) / best.median(figure)
            yield _at_most(name, ratio, most, f"of {best.contender}'s", 2)


def _at_most(figure: str, reached: float, most: float, unit: str, digits: int) -> Verdict:
    shown = f"{reached:.{digits}f} {unit}"
    return Verdict(figure, shown, f"{most:.{digits}f}", reached / most)


def summary(cases: Sequence[CaseResult]) -> list[str]:
    """Give a line for each case with targets that was run, over TLS where that was measured."""
    lines = []
    for name in TARGETS:
        found = [one for one in cases if one.case == name]
        chosen = next((one for one in found if "TLS" in one.server), found[0] if found else None)
        if chosen is None:
            continue
        made = verdicts(chosen, cases)
        ours = next((r for r in chosen.results if r.contender == OURS), None)
        why = short(ours.problem) if ours and ours.problem else "nothing to compare with"
        text = "; ".join(map(str, made)) or why
        lines.append(f"{chosen.title} ({chosen.server}): {text}")
    return lines

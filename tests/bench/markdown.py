"""The results as Markdown, to be read by people and pasted into a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tests.bench.report import MIB, OURS, CaseResult, Result, short
from tests.bench.targets import verdicts


def document(about: Mapping[str, str], cases: Sequence[CaseResult]) -> str:
    """Give the page: where and when, what was reached, every figure, every setting."""
    shown = [found for found in cases if any(r.counts for r in found.results)]
    return "\n".join(
        (
            *_preamble(about),
            "",
            *_targets(shown),
            "",
            *_figures(shown),
            "",
            *_settings(shown),
            "",
        )
    )


def _preamble(about: Mapping[str, str]) -> list[str]:
    versions = [text for name, text in about.items() if name.startswith("version of") and text]
    return [
        f"Measured on {about['date'][:10]}: {about['processor']}, Linux {about['kernel']},"
        f" Python {about['python']}; medians of {about['rounds']} rounds in turn.",
        f"Versions: {'; '.join(versions)}.",
        f"Repeat: `{about['command']}`.",
    ]


def _targets(cases: Sequence[CaseResult]) -> list[str]:
    lines = ["| case | s3flow | target | |", "|---|---|---|---|"]
    for found in cases:
        for verdict in verdicts(found, cases):
            met = "met" if verdict.met else f"{verdict.excess:.2f} times"
            name = f"{found.title}, {found.server}"
            lines.append(
                f"| {name} | {verdict.figure} {verdict.reached} | {verdict.target} | {met} |"
            )
    return lines if len(lines) > 2 else []


def _figures(cases: Sequence[CaseResult]) -> list[str]:
    lines = [
        "| case | | wall | CPU | CPU each | per CPU second | memory |",
        "|---|---|---:|---:|---:|---:|---:|",
    ]
    for found in cases:
        for result in found.results:
            if result.counts:
                lines.append(_row(found, result))
    return lines


def _row(found: CaseResult, result: Result) -> str:
    mark = "**" if result.contender == OURS else ""
    cells = (
        f"{found.title}, {found.server}",
        f"{mark}{result.contender}{mark}",
        f"{result.median('wall'):.2f} s",
        f"{result.median('cpu'):.2f} s",
        found.unit_cost(result),
        found.pace(result),
        f"{result.median('peak') / MIB:.0f} MiB",
    )
    return f"| {' | '.join(cells)} |"


def _settings(cases: Sequence[CaseResult]) -> list[str]:
    """Name settings and reasons once for all cases where they are the same."""
    told: dict[tuple[str, str], list[str]] = {}
    for found in cases:
        for result in found.results:
            text = f"`{result.settings}`" if result.counts else short(result.problem)
            names = told.setdefault((result.contender, text), [])
            if found.case not in names:
                names.append(found.case)
    return [f"- {name} ({', '.join(names)}): {text}" for (name, text), names in told.items()]

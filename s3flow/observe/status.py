"""The table of `s3flow status`: per flow a line a state, which add up to what is listed."""

from __future__ import annotations

import time
from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from s3flow.model import OUTCOMES, Outcome, State, Verdict
from s3flow.observe.inventory import class_rows, class_words, unlisted_rows
from s3flow.observe.progress import FlowSnapshot
from s3flow.observe.text import shown, size
from s3flow.observe.wording import STYLES, counted, due, eta, skips

ROUTES = 10  # of a flow that are shown
REASON = 200  # characters of why


def status_table(snapshots: Sequence[FlowSnapshot], *, buckets: bool = False) -> Table:
    """Make the table; with *buckets* each source bucket's outcomes follow its flow."""
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column("Flow", no_wrap=True, overflow="ellipsis", max_width=24)
    table.add_column("State", no_wrap=True)
    table.add_column("Objects", justify="right", no_wrap=True)
    table.add_column("Bytes", justify="right", no_wrap=True)
    table.add_column("Why, how and when")
    for one in snapshots:
        _add_flow(table, one)
        if buckets:
            _add_buckets(table, one)
    return table


def _add_flow(table: Table, one: FlowSnapshot) -> None:
    name = shown(one.name)
    pending = [state for state in STYLES if OUTCOMES[state] is Outcome.PENDING]
    first = next((state for state in pending if one.states.get(state, (0, 0))[0]), None)
    for state, style in STYLES.items():
        objects, volume = one.states.get(state, (0, 0))
        if objects:
            note = Text(_note(one, state, first))
            table.add_row(
                name, state.value.replace("_", " "), f"{objects:,}", size(volume), note, style=style
            )
            name = ""
    for route in one.routes[:ROUTES]:
        table.add_row(name, "route", "", "", Text(_way(route)))
        name = ""
    if len(one.routes) > ROUTES:
        more = f"and those of {len(one.routes) - ROUTES:,} more: s3flow status --json"
        table.add_row(name, "", "", "", Text(more))
        name = ""
    for words, number, volume, remark in class_rows(
        one.inventory, pending=bool(one.objects.pending), begun=one.has_arrived
    ):
        table.add_row(name, words, f"{number:,}", size(volume), Text(remark))
        name = ""
    for bucket, why in unlisted_rows(one.inventory):
        table.add_row(name, "not listed", "", "", Text(f"{bucket}: {why}"), style="bold red")
        name = ""
    if one.held is not None:
        words = f"no source is deleted: {shown(one.held.why)}; to go on: s3flow release {one.name}"
        table.add_row(name, "deletes held", "", "", Text(words), style="bold red")
        name = ""
    if one.money is not None:
        style = "bold red" if one.money.blocked else ""
        table.add_row(name, "spent", "", "", Text(one.money.words()), style=style)
        name = ""
    table.add_row(
        name,
        "listed",
        f"{one.objects.listed:,}",
        size(one.bytes.listed),
        Text(_listed(one)),
        style="bold",
        end_section=True,
    )


def _note(one: FlowSnapshot, state: State, first: State | None) -> str:
    notes = []
    if state is first:
        notes.append(f"{size(one.rates.bytes_per_s)}/s, ETA {eta(one)}")
    if state in (State.RESTORE_REQUESTED, State.RESTORING) and one.thawing:
        notes.append(due(one.thawing))
    if state is State.VERIFIED:
        notes.append(counted(one.proofs))
        if one.kept:
            notes.append(f"sources stay: {counted(one.kept)}")
    elif state is State.FAILED:
        notes.append(counted(one.failures))
    elif state is State.SKIPPED:
        notes.append(counted(skips(one)))
    return "; ".join(filter(None, notes))


def _way(route: Verdict) -> str:
    what = route.bucket if route.what == "objects" else f"{route.bucket}, in {route.what}"
    why = route.reason[:REASON] + ("…" if len(route.reason) > REASON else "")
    return f"{what}: {route.way}" + (f" ({why})" if why else "")


def _listed(one: FlowSnapshot) -> str:
    finished = one.scan.finished if one.scan else None
    if finished is None:
        return "not yet listed to the end"
    words = f"listed {time.strftime('%Y-%m-%d %H:%M:%SZ', time.gmtime(finished))}"
    return words + (", listing again" if one.scan and one.scan.unfinished else "")


def _add_buckets(table: Table, one: FlowSnapshot) -> None:
    classes = one.inventory.buckets()
    for name, counts in one.buckets.items():
        first, note = f"  {shown(name)}", class_words(classes.get(name, {}))
        for outcome in Outcome:
            objects = getattr(counts.objects, outcome)
            if objects:
                volume = size(getattr(counts.bytes, outcome))
                style = STYLES.get(
                    State(outcome) if outcome is not Outcome.PENDING else State.DISCOVERED, ""
                )
                table.add_row(first, outcome.value, f"{objects:,}", volume, Text(note), style=style)
                first = note = ""
    if one.buckets:
        table.add_section()

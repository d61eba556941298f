"""Reports in plain text: the few lines that end a command, and the whole of a run at a glance."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from s3flow.model import Outcome
from s3flow.observe.account import Account, Figures, FlowAccount, ObjectAccount, ShareAccount
from s3flow.observe.inventory import inventory_lines
from s3flow.observe.progress import FlowSnapshot
from s3flow.observe.text import duration, shown, size
from s3flow.policies import CopyBy

WIDTH = 80  # columns
_LABEL = 16  # columns of a line's first word
_INDENT = "  "


def summary_lines(snapshots: Sequence[FlowSnapshot], report: Path | None = None) -> list[str]:
    """Give lines for the end of a command; every object is in exactly one outcome.

    *report* is the file that has more of it.
    """
    lines: list[str] = []
    for one in snapshots:
        lines.append(f"{one.name}: {one.objects.listed:,} objects, {size(one.bytes.listed)}")
        for outcome in Outcome:
            objects, volume = getattr(one.objects, outcome), getattr(one.bytes, outcome)
            if objects:
                lines.append(f"  {outcome.value}: {objects:,} objects, {size(volume)}")
        lines += _counted("methods", one.methods)
        lines += _counted("proofs", one.proofs)
        lines += _counted("reasons", one.reasons)
        if one.held is not None:
            why = shown(one.held.why)
            lines.append(f"  no source is deleted: {why}; to go on: s3flow release {one.name}")
        lines += _counted("sources stay", one.kept)
        lines += _counted("not carried by the target", one.dropped)
        if one.thawing is not None:
            lines.append(
                f"  archived: {one.thawing.objects:,} objects, {size(one.thawing.bytes)}, wait for a restore"
            )
        # Where some thaw already, the listing's count of archived ones is no longer what is left of them.
        fresh = bool(one.objects.pending) and one.thawing is None
        left = (one.objects.pending, one.bytes.pending) if one.has_arrived else None
        lines += inventory_lines(one.inventory, pending=fresh, left=left)
        if one.money is not None:
            lines.append(f"  spent: {one.money.words()}")
        if one.scan and one.scan.unfinished:
            lines.append("  the source is not listed to its end: there may be more")
    if report is not None:
        lines.append(f"report: {report}")
    return lines


def _counted(title: str, counts: Mapping[str, int]) -> list[str]:
    if not counts:
        return []
    most_first = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return [f"  {title}: {_listing(dict(most_first))}"]


def _listing(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{shown(name)} {number:,}" for name, number in counts.items())


# --- the report of a run -------------------------------------------------------------------------


def report_lines(account: Account) -> list[str]:
    """Give the report for people, no line wider than `WIDTH` but where a word is."""
    flows = account["flows"]
    lines = list(_head(account))
    if len(flows) == 1:
        (one,) = flows
        lines += ["", *_flow_head(one), "", *_figures(one), *_named(one), *_flow_tail(one)]
    else:
        total = account["total"]
        lines += ["", *_figures({**total, "streamed": {**total["streamed"], "why": []}})]
        lines += _named(total)
        for one in flows:
            lines += ["", "-" * WIDTH, *_flow_head(one)]
            lines += ["", headline(one), "", *_figures(one), *_flow_tail(one)]
    return [line.rstrip() for line in lines]


def headline(figures: Figures) -> str:
    """Say how much it was and how fast, in one line."""
    files, seconds = figures["transferred"], figures["duration_ms"] / 1000
    return (
        f"{_INDENT}{files:,} {'file' if files == 1 else 'files'} in {_took(seconds)}, "
        f"{figures['files_per_s']:,.1f} files/s, {figures['megabytes_per_s']:,.2f} MB/s"
    )


def _head(account: Account) -> Iterator[str]:
    total, title = account["total"], "s3flow transfer report"
    ended = _when(total["ended"], to="seconds")
    yield f"{title}{ended:>{WIDTH - len(title)}}"
    yield "=" * WIDTH
    yield ""
    yield headline(total)
    yield ""
    status = "" if account["exit_code"] is None else f" (exit status {account['exit_code']})"
    yield from _item("Ending", f"{account['ending']}{status}")
    if account["error"]:
        yield from _item("Error", account["error"])
    yield from _item("Started", _when(total["started"]))
    yield from _item("Ended", _when(total["ended"]))
    yield from _item("Duration", f"{total['duration_ms']:,} ms")
    yield from _item("By", f"s3flow {account['s3flow']} {account['command']}, {account['host']}")
    if account["loop_holds"]:
        held = f"{account['loop_holds']:,} times, {account['loop_held_seconds']:.2f} s at least"
        yield from _item("Loop held", held)
    if account["worker_deaths"]:
        yield from _item("Workers died", _listing(account["worker_deaths"]))


def _flow_head(one: FlowAccount) -> Iterator[str]:
    yield from _item("Flow", one["name"])
    yield from _item("From", one["source"])
    yield from _item("To", one["target"])
    for route in one["routes"]:
        way = route["way"]
        # Why objects are streamed is told with their number.
        how = way if way == CopyBy.STREAMED else f"inside the store, by the {way}"
        yield from _item("Route", f"{route['what']} of {route['bucket']}: {how}")


def _flow_tail(one: FlowAccount) -> Iterator[str]:
    streamed = [route["reason"] for route in one["routes"] if route["way"] == CopyBy.STREAMED]
    warnings = {
        message: times
        for message, times in one["warnings"].items()
        if not any(reason and reason in message for reason in streamed)
    }
    if one["unlisted_buckets"] or warnings:
        yield ""
        yield f"{_INDENT}Attention"
        for bucket, why in one["unlisted_buckets"].items():
            yield from _wrapped(f"{bucket} could not be listed: {why}")
        for message, times in warnings.items():
            yield from _wrapped(message if times == 1 else f"{message} ({times:,} times)")
        if one["warnings_left_out"]:
            yield from _wrapped(f"… and {one['warnings_left_out']:,} more: see the log")
    if one["state"]:
        state, volume = one["state"], one["state_bytes"]
        yield ""
        yield _columns("Where it stands", "files", "", "bytes")
        for name, number in state.items():
            if number or name == "listed":
                yield _columns(f"  {name}", f"{number:,}", "", size(volume[name]))
        if one["sources_kept"]:
            why = _listing(one["sources_kept"])
            yield from _wrapped(f"Sources stay: {why}. Which, and why: s3flow failures")
        if not one["listed_to_the_end"]:
            yield from _wrapped("The source is not listed to its end: there may be more.")


def _figures(of: Figures) -> Iterator[str]:
    processed = of["files_processed"]
    yield _columns("Processed", f"{processed:,}", "share", "bytes")
    yield _columns("  transferred", f"{of['transferred']:,}", _of(of, "transferred"), _bytes(of))
    if of["adopted"]:
        volume = size(of["bytes_adopted"])
        yield _columns("  were there", f"{of['adopted']:,}", _of(of, "adopted"), volume)
    yield _columns("  skipped", f"{of['skipped']:,}", _of(of, "skipped"), "")
    yield _columns("  failed", f"{of['failed']:,}", _of(of, "failed"), "")
    if of["deleted_at_source"]:
        yield _columns("Deleted at source", f"{of['deleted_at_source']:,}", "", "")
    yield ""
    yield from _shares("Methods", of["methods"])
    yield from _shares("Proofs", of["proofs"])
    for why in of["streamed"]["why"]:
        yield from _item("Streamed why", why)
    yield from _item("Average size", size(of["average_size"]) if of["transferred"] else "-")
    times = of["seconds"]
    spread = [f"{name} {_took(took)}" for name, took in times.items() if took is not None]
    yield from _item("Time an object", "   ".join(spread) or "-")
    unchanged = f", {of['unchanged']:,} of them as before" if of["unchanged"] else ""
    yield from _item("Listed", f"{of['listed']:,}{unchanged}")
    yield from _item("Retries", _listing(of["retries"]) or "none")
    yield from _item("Throttled", _listing(of["throttles"]) or "never")
    if of["blocked"]:
        yield from _item("Blocked", _listing(of["blocked"]))
    if of["skip_reasons"]:
        yield from _item("Skipped why", _listing(of["skip_reasons"]))
    if of["failure_reasons"]:
        yield from _item("Failed why", _listing(of["failure_reasons"]))
        yield from _failures(of)


def _named(of: Figures) -> Iterator[str]:
    yield from _objects("Slowest", of["slowest"])
    yield from _objects("Largest", of["largest"])


def _shares(title: str, shares: Mapping[str, ShareAccount]) -> Iterator[str]:
    if not shares:
        return
    yield _columns(title, "files", "share", "bytes")
    for name, one in shares.items():
        yield _columns(
            f"  {name}", f"{one['objects']:,}", _percent(one["share"]), size(one["bytes"])
        )
    yield ""


def _failures(of: Figures) -> Iterator[str]:
    yield ""
    rest = of["failed"] - len(of["failures"])
    yield f"{_INDENT}Failed" + (f", the first {len(of['failures'])}" if rest > 0 else "")
    for one in of["failures"]:
        yield from _wrapped(f"{one['bucket']}/{one['key']}")
        yield from _wrapped(f"{one['reason']}: {one['message']}", deeper="    ")
    if rest > 0:
        yield from _wrapped("All of them: s3flow failures")


def _objects(title: str, objects: Sequence[ObjectAccount]) -> Iterator[str]:
    if not objects:
        return
    yield ""
    yield f"{_INDENT}{title}"
    for one in objects:
        start = f"    {_took(one['seconds']):>9} {size(one['size']):>11}  {one['method']:<16} "
        yield start + _end_of(f"{one['bucket']}/{one['key']}", WIDTH - len(start))


def _end_of(text: str, limit: int) -> str:
    """Keep the end: keys of one flow begin alike."""
    whole = shown(text, 2_000)
    return whole if len(whole) <= limit else f"…{whole[1 - limit :]}"


def _columns(name: str, number: str, share: str, volume: str) -> str:
    return f"{_INDENT}{name:<22}{number:>13}{share:>10}{volume:>14}"


def _item(name: str, text: str) -> list[str]:
    first = f"{_INDENT}{name:<{_LABEL}}"
    return _fold(text, first, " " * len(first))


def _wrapped(text: str, deeper: str = "") -> list[str]:
    return _fold(text, f"{_INDENT}  {deeper}", f"{_INDENT}    {deeper}")


def _fold(text: str, first: str, others: str) -> list[str]:
    return textwrap.wrap(
        shown(text, 1_000),
        WIDTH,
        initial_indent=first,
        subsequent_indent=others,
        break_on_hyphens=False,
        break_long_words=False,
    ) or [first]


def _of(of: Figures, what: str) -> str:
    counts = {"transferred": of["transferred"], "adopted": of["adopted"]}
    counts |= {"skipped": of["skipped"], "failed": of["failed"]}
    whole = of["files_processed"]
    return _percent(counts[what] / whole) if whole else ""


def _percent(share: float) -> str:
    """Give a share; neither all nor nothing is said of what is not."""
    shortened = f"{100 * share:.1f}%"
    if shortened == "100.0%" and share < 1:
        return ">99.9%"
    return "<0.1%" if shortened == "0.0%" and share > 0 else shortened


def _bytes(of: Figures) -> str:
    return size(of["bytes"])


def _took(seconds: float) -> str:
    if seconds >= 600:
        return duration(seconds)
    if seconds >= 1:
        return f"{seconds:.2f} s"
    return f"{seconds * 1000:.1f} ms"


def _when(iso: str, *, to: str = "milliseconds") -> str:
    text = iso.removesuffix("Z").replace("T", " ")
    return f"{text.partition('.')[0] if to == 'seconds' else text} UTC"

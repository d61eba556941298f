"""One picture of a run as lines that fit a terminal of any size. Pure; no I/O."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from rich.text import Text

from s3flow.model import State
from s3flow.observe.news import News
from s3flow.observe.progress import FlowSnapshot, together
from s3flow.observe.text import duration, percent, shown, size
from s3flow.observe.wording import STYLES, counted, due, eta, skips

_MOVE = (State.TRANSFERRING, State.DISCOVERED)  # who tells what is under way
_THAW = (State.RESTORING, State.RESTORE_REQUESTED)  # who tells when restores are due
_BAR = (10, 48)  # columns, least and most
_WIDEST = 110  # columns of a line with a bar: eyes lose their way on longer ones
_GAP = "   "
_WORD = 11  # columns of the words that begin the last lines
_FAILURES = 3


@dataclass(frozen=True, slots=True)
class Paper:
    """What is drawn on: columns, lines, and the characters that it can show."""

    width: int
    height: int
    unicode: bool = True


@dataclass(frozen=True, slots=True)
class _Scene:
    news: News
    paper: Paper
    alone: bool  # there is one flow and no more


Styled = str | tuple[str, str]
Draw = Callable[[FlowSnapshot, _Scene], list[Text]]


def frame(
    snapshots: Sequence[FlowSnapshot], news: News, paper: Paper, alarms: Sequence[str] = ()
) -> list[Text]:
    """Draw a run; never more lines than *paper* has, none wider, and the most important ones first.

    Each flow gets one line first, then two, then all its states, as long as there is room. *alarms*
    concern all flows.
    """
    scene = _Scene(news, paper, alone=len(snapshots) == 1)
    last = _last_lines(news, paper, alarms)[: max(0, paper.height // 2 - 2)]
    first = [] if scene.alone else _all_flows(snapshots, scene)
    room = max(1, paper.height - len(first) - len(last))
    if len(snapshots) > room:
        room = max(1, room - 1)
    chosen = list(range(len(snapshots)))
    by_need = sorted(chosen, key=lambda at: _urgency(snapshots[at], news))
    if len(chosen) > room:
        chosen = sorted(by_need[:room])
    drawn = {at: [_head(snapshots[at], scene, facts=True)] for at in chosen}
    left = room - len(chosen)
    for at, draw in _upgrades(by_need, snapshots, news):
        if at in drawn and left:
            richer = draw(snapshots[at], scene)
            if (more := len(richer) - len(drawn[at])) <= left:
                drawn[at], left = richer, left - more
    lines = [*first, *(line for at in chosen for line in drawn[at])]
    if len(chosen) < len(snapshots):
        lines.append(_dim(f"… and {len(snapshots) - len(chosen)} more flows: s3flow status"))
    return [_fitted(line, paper) for line in (*lines, *last)][: paper.height]


def _urgency(one: FlowSnapshot, news: News) -> tuple[bool, bool, bool]:
    return (one.name not in news.blocked, not one.objects.pending, not one.objects.failed)


def _upgrades(
    by_need: Sequence[int], snapshots: Sequence[FlowSnapshot], news: News
) -> Iterator[tuple[int, Draw]]:
    """Say which flow gets more lines first: those where something goes on, then the rest."""
    quiet = [at for at in by_need if all(_urgency(snapshots[at], news))]
    lively = by_need[: len(by_need) - len(quiet)]
    for draw, these in ((_compact, lively), (_full, lively), (_full, quiet)):
        for at in these:
            yield at, draw


def _fitted(line: Text, paper: Paper) -> Text:
    if not paper.unicode:
        line = _plain(line)
    line.no_wrap, line.end = True, "\n"
    line.truncate(paper.width, overflow="ellipsis" if paper.unicode else "crop")
    line.rstrip()
    return line


def _plain(line: Text) -> Text:
    """Give the line without characters that a terminal of few cannot show."""
    words = line.plain.translate(_SIMPLER).encode("ascii", "backslashreplace").decode()
    return Text(words, line.style)


_SIMPLER = str.maketrans({"━": "#", "╸": ">", "─": "-", "…": "~", "·": "|"})


# --- parts of the picture -----------------------------------------------------------------------


def _all_flows(snapshots: Sequence[FlowSnapshot], scene: _Scene) -> list[Text]:
    news, paper = scene.news, scene.paper
    whole = together(snapshots)
    blocked = sum(one.name in news.blocked for one in snapshots)
    busy = sum(bool(one.objects.pending) for one in snapshots)
    words = f"{len(snapshots)} flows" + (f", {busy} moving" if busy else "")
    head = _bar_line(
        (words, "bold"), f", {blocked} blocked" if blocked else "", whole, paper, blocked > 0
    )
    if paper.height < 6:
        return [head]
    listing = bool(news.listing)
    return [
        head,
        *_packed(_amounts(whole, listing), paper),
        *_packed(_speeds(whole, news.elapsed), paper),
    ]


def _compact(one: FlowSnapshot, scene: _Scene) -> list[Text]:
    """Draw a flow in two lines, or a few more if there is trouble."""
    facts: list[Styled] = [
        f"{one.objects.done:,} of {one.objects.listed:,} objects",
        f"{size(one.bytes.done)} of {size(one.bytes.listed)}",
    ]
    if one.objects.pending:
        facts += [f"{size(one.rates.bytes_per_s)}/s", f"ETA {duration(one.rates.eta_p50)}"]
    return [
        _head(one, scene, facts=False),
        *_packed([*facts, *_troubles(one)], scene.paper),
        *_blocked(one, scene.news),
    ]


def _full(one: FlowSnapshot, scene: _Scene) -> list[Text]:
    """Draw a flow with each state that an object of it is in."""
    lines = [
        _head(one, scene, facts=False),
        *_packed(_amounts(one, one.name in scene.news.listing), scene.paper),
    ]
    if one.objects.pending or scene.alone:
        elapsed = scene.news.elapsed if scene.alone else None
        lines += _packed(_speeds(one, elapsed), scene.paper)
    return [*lines, *_states(one, scene.paper), *_blocked(one, scene.news)]


def _head(one: FlowSnapshot, scene: _Scene, *, facts: bool) -> Text:
    """Give a flow's first line; with *facts* it is the only one."""
    news = scene.news
    blocked = one.name in news.blocked
    doing = _doing(one, news)
    if blocked:
        doing = f"blocked ({news.blocked[one.name].partition(':')[0]})"
    elif facts and one.objects.pending:
        doing = f"{size(one.rates.bytes_per_s)}/s, ETA {duration(one.rates.eta_p50)}"
    elif facts and one.objects.listed:
        doing = f"{one.objects.listed:,} objects, {size(one.bytes.listed)}"
    return _bar_line((shown(one.name), "bold"), f"  {doing}", one, scene.paper, blocked)


def _doing(one: FlowSnapshot, news: News) -> str:
    listing = "listing" if one.name in news.listing else ""
    if unlisted := len(news.unlisted.get(one.name, ())):
        listing = f"{unlisted:,} bucket{'s' * (unlisted > 1)} not listed"
    moving = "moving" if one.objects.pending else ""
    return " and ".join(filter(None, (listing, moving))) or "idle"


def _bar_line(
    title: tuple[str, str], words: str, one: FlowSnapshot, paper: Paper, blocked: bool
) -> Text:
    """Make a line with a bar at its right end; a title that is too long gives way to it."""
    least, most = _BAR
    width = min(paper.width, _WIDEST)
    columns = max(least, min(most, width // 3))
    share = _share(one)
    head = Text.assemble(title, (words, "red" if blocked else "dim"))
    room = width - columns - 6
    if room < 8:  # a terminal for ants
        return Text.assemble((f"{share}% ", ""), head)
    head.truncate(room, overflow="ellipsis", pad=True)
    done = columns * share // 100
    tip = 1 if 0 < share < 100 and done < columns else 0
    return Text.assemble(
        head,
        " ",
        ("━" * done + "╸" * tip, "red" if blocked else "green"),
        ("─" * (columns - done - tip), "dim"),
        f"{share:>4}%",
    )


def _share(one: FlowSnapshot) -> int:
    if not one.objects.pending:
        return 100 if one.objects.listed else 0
    # An object that is under way shows in bytes first; empty ones show in the count alone.
    arrived = one.moving.arrived if one.moving else 0
    part, whole = (
        (one.bytes.done + arrived, one.bytes.listed)
        if one.bytes.pending
        else (one.objects.done, one.objects.listed)
    )
    return min(99, part * 100 // whole)


def _amounts(one: FlowSnapshot, listing: bool) -> Iterator[Styled]:
    objects, data = one.objects, one.bytes
    if not objects.listed:
        yield "nothing is listed yet" if listing else "there is nothing"
        return
    far = " so far" if listing else ""
    share = percent(objects.done, objects.listed)
    yield f"objects {objects.done:,} of {objects.listed:,}{far} ({share})"
    share = percent(data.done, data.listed)
    yield f"data {size(data.done)} of {size(data.listed)} ({share})"


def _speeds(one: FlowSnapshot, elapsed: float | None) -> Iterator[Styled]:
    yield f"{size(one.rates.bytes_per_s)}/s"
    yield f"{one.rates.objects_per_s:,.1f} objects/s"
    if elapsed is not None:
        yield f"elapsed {duration(elapsed)}"
    if one.objects.pending:
        yield f"ETA {eta(one)}"


def _troubles(one: FlowSnapshot) -> Iterator[Styled]:
    for state in (State.FAILED, State.SKIPPED):
        if state in one.states and one.states[state][0]:
            yield (f"{state.value} {one.states[state][0]:,}", STYLES[state])
    waiting = sum(one.states.get(state, (0, 0))[0] for state in _THAW)
    if waiting:
        yield (f"waiting for a restore {waiting:,}", STYLES[State.RESTORING])


def _states(one: FlowSnapshot, paper: Paper) -> Iterator[Text]:
    """Give a line for each state that objects are in: how many, how much, and what is to say of it."""
    rows = [
        (state, f"{numbers[0]:,}", size(numbers[1]))
        for state in STYLES
        if (numbers := one.states.get(state)) and numbers[0]
    ]
    if not rows:
        return
    names = max(len(_name(state)) for state, _, _ in rows)
    wide = max(7, *(len(objects) for _, objects, _ in rows))
    noted = {
        next((state for state in states if one.states.get(state)), None): words
        for states, words in ((_MOVE, _moving(one)), (_THAW, one.thawing and due(one.thawing)))
    }
    for state, objects, volume in rows:
        line = f"  {_name(state):<{names}}  {objects:>{wide}}  {volume:>9}"
        words = noted.get(state) or _words_on(one, state)
        if words and paper.width - len(line) >= 12:
            yield Text.assemble((line, STYLES[state]), (f"  {words}", "dim"))
        else:
            yield Text(line, STYLES[state])


def _name(state: State) -> str:
    return state.value.replace("_", " ")


def _moving(one: FlowSnapshot) -> str:
    moving = one.moving
    if not moving or not moving.objects:
        return ""
    if moving.arrived * 100 < moving.bytes:  # small ones arrive and end at once
        return f"{moving.objects:,} moving, {size(moving.bytes)}"
    return f"{moving.objects:,} moving, {size(moving.arrived)} of {size(moving.bytes)} arrived"


def _words_on(one: FlowSnapshot, state: State) -> str:
    if state is State.FAILED:
        return counted(one.failures)
    if state is State.SKIPPED:
        return counted(skips(one))
    if state is State.VERIFIED:
        return " · ".join(filter(None, (counted(one.methods), counted(one.proofs))))
    return ""


def _blocked(one: FlowSnapshot, news: News) -> Iterator[Text]:
    if one.name in news.blocked:
        yield Text(f"  blocked by {news.blocked[one.name]}", "bold red")
    if one.name in news.holding:
        yield Text(f"  no source is deleted: {news.holding[one.name]}", "bold red")
    if one.kept:
        yield Text(f"  sources stay: {counted(one.kept)}", "yellow")


def _last_lines(news: News, paper: Paper, alarms: Sequence[str]) -> list[Text]:
    """Say what concerns the run as a whole, the most important first."""
    lines = [_labelled("attention", shown(alarm), "bold red") for alarm in alarms]
    lines += [
        Text.assemble(
            (f"{'slowed':<{_WORD}}", "yellow"),
            f"{shown(name)} asked {_times(slow.times)}, {slow.concurrency} at a time now",
        )
        for name, slow in sorted(news.slowed().items())
    ]
    if news.deaths or len(news.workers) > 1:
        words = f"{len(news.workers)} processes"
        words += f", {news.deaths} died and started again" if news.deaths else ""
        lines.append(_labelled("workers", words, "red" if news.deaths else "dim"))
    if news.retries:
        words = f"{sum(news.retries.values()):,} ({counted(news.retries)})"
        lines.append(_labelled("retries", words, "yellow"))
    for number, (reason, place) in enumerate(news.last_failures()[:_FAILURES]):
        word = "" if number else "failures"
        space = paper.width - _WORD - len(reason) - 2
        lines.append(_labelled(word, f"{reason}  {_end_of(place, space)}", "red"))
    return lines


def _labelled(word: str, words: str, style: str) -> Text:
    return Text.assemble((f"{word:<{_WORD}}", style), words)


def _end_of(place: str, columns: int) -> str:
    """Keep the end of a key: those of one flow begin alike."""
    text = Text(place)
    if text.cell_len <= columns:
        return place
    start = len(place)
    left = columns - 1
    while start and (left := left - Text(place[start - 1]).cell_len) >= 0:
        start -= 1
    return "…" + place[start:]


def _times(number: int) -> str:
    return "once to slow down" if number == 1 else f"{number:,} times to slow down"


def _dim(words: str) -> Text:
    return Text(words, "dim")


def _packed(facts: Iterable[Styled], paper: Paper) -> list[Text]:
    """Set facts side by side, in as many lines as that takes."""
    lines: list[Text] = []
    for fact in facts:
        words = Text(fact) if isinstance(fact, str) else Text(*fact)
        if lines and lines[-1].cell_len + len(_GAP) + words.cell_len <= paper.width:
            lines[-1].append(_GAP)
        else:
            lines.append(Text("  "))
        lines[-1].append_text(words)
    return lines

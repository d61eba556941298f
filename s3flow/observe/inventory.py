"""What there is at the source, by storage class, and which buckets could not be listed. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from s3flow.model import ARCHIVES, OUTCOMES, Outcome
from s3flow.observe.text import shown, size
from s3flow.records import ClassStates, ClassTotal, Unlisted

SHOWN = 10  # buckets that could not be listed, or words of a line


class Inventory(NamedTuple):
    """What the listings counted. *states* is there where somebody asked: it is counted row by row."""

    classes: Sequence[ClassTotal] = ()
    unlisted: Sequence[Unlisted] = ()
    states: Sequence[ClassStates] | None = None

    def by_class(self, bucket: str | None = None) -> dict[str, tuple[int, int]]:
        """Give objects and bytes of each storage class, of one bucket or of all."""
        found: dict[str, tuple[int, int]] = {}
        for one in self.classes:
            if bucket is None or one.bucket == bucket:
                objects, volume = found.get(one.storage_class, (0, 0))
                found[one.storage_class] = (objects + one.objects, volume + one.bytes)
        return dict(sorted(found.items()))

    def buckets(self) -> dict[str, dict[str, tuple[int, int]]]:
        """Give objects and bytes by bucket and storage class."""
        found: dict[str, dict[str, tuple[int, int]]] = {}
        for one in self.classes:
            found.setdefault(one.bucket, {})[one.storage_class] = (one.objects, one.bytes)
        return found

    def frozen(self) -> dict[str, tuple[int, int]]:
        """Give what is still to be moved of archive classes: by the states, where they are known."""
        if self.states is None:
            return {name: it for name, it in self.by_class().items() if name in ARCHIVES}
        found: dict[str, tuple[int, int]] = {}
        for one in self.states:
            if one.storage_class in ARCHIVES and OUTCOMES[one.state] is Outcome.PENDING:
                objects, volume = found.get(one.storage_class, (0, 0))
                found[one.storage_class] = (objects + one.objects, volume + one.bytes)
        return found


NOTHING = Inventory()


def inventory_json(one: Inventory) -> dict[str, Any]:
    """Give the shape that `status --json` promises."""
    states: dict[str, dict[str, dict[str, int]]] = {}
    for each in one.states or ():
        numbers = {"objects": each.objects, "bytes": each.bytes}
        states.setdefault(each.storage_class, {})[each.state.value] = numbers
    listed = one.by_class()
    return {
        "storage_classes": {
            name: {
                **classes_json({name: listed.get(name, (0, 0))})[name],
                **({} if one.states is None else {"states": states.get(name, {})}),
            }
            for name in sorted({*listed, *states})
        },
        "unlisted_buckets": {
            each.bucket: {
                "reason": each.reason,
                "message": each.message,
                "since": _iso(each.since),
            }
            for each in one.unlisted
        },
    }


def classes_json(classes: dict[str, tuple[int, int]]) -> dict[str, dict[str, Any]]:
    """Give each storage class with what was listed of it, and whether it has to be restored first."""
    return {
        name: {"objects": objects, "bytes": volume, "archived": name in ARCHIVES}
        for name, (objects, volume) in classes.items()
    }


def class_rows(
    one: Inventory, *, pending: bool, begun: bool = False
) -> Iterator[tuple[str, int, int, str]]:
    """Give lines for people: a class or a class's state, objects, bytes, what is to be said of it.

    None where all is of one class that can be read at once: there is nothing to tell. *pending*:
    not everything is done; *begun*: something is, which may be what had to be restored.
    """
    if one.states is not None:
        for each in one.states:
            note = _note(each.storage_class, pending=OUTCOMES[each.state] is Outcome.PENDING)
            words = f"{each.storage_class}, {each.state.value.replace('_', ' ')}"
            yield words, each.objects, each.bytes, note
        return
    classes = one.by_class()
    if len(classes) > 1 or any(name in ARCHIVES for name in classes):
        for name, (objects, volume) in classes.items():
            yield name, objects, volume, _note(name, pending=pending, begun=begun)


def class_words(classes: Mapping[str, tuple[int, int]]) -> str:
    """Give the storage classes of a bucket, but for one whose objects can all be read at once."""
    if len(classes) < 2 and not ARCHIVES.intersection(classes):
        return ""
    return ", ".join(
        f"{name} {objects:,} ({size(volume)})" for name, (objects, volume) in classes.items()
    )


def _note(storage_class: str, *, pending: bool, begun: bool = False) -> str:
    if not pending or storage_class not in ARCHIVES:
        return ""
    return (
        "is archived; --classes has what is left" if begun else "needs a restore before it is read"
    )


def unlisted_rows(one: Inventory) -> Iterator[tuple[str, str]]:
    """Give the buckets that could not be listed, and why; and how many more there are."""
    for each in one.unlisted[:SHOWN]:
        yield (
            shown(each.bucket),
            f"{each.reason} since {_minute(each.since)}: {shown(each.message)}",
        )
    if len(one.unlisted) > SHOWN:
        yield "", f"and {len(one.unlisted) - SHOWN:,} more: s3flow status --json"


def inventory_lines(
    one: Inventory, *, pending: bool, left: tuple[int, int] | None = None
) -> list[str]:
    """Give lines for the end of a command; *left* is what all is not done of, once some is."""
    lines = []
    if words := [f"{name} {objects:,} ({size(volume)})" for name, objects, volume, _ in _top(one)]:
        lines.append(f"  storage classes: {', '.join(words)}")
    if pending and (frozen := one.frozen()):
        objects, volume = (sum(numbers) for numbers in zip(*frozen.values(), strict=True))
        most = ""
        if left is not None:
            objects, volume, most = min(objects, left[0]), min(volume, left[1]), "at most "
        amount = f"{most}{objects:,} objects, {size(volume)}"
        lines.append(f"  archived: {amount}, need a restore before they go")
    lines += [f"  not listed: {name} {why}".rstrip() for name, why in unlisted_rows(one)]
    return lines


def _top(one: Inventory) -> Iterable[tuple[str, int, int, str]]:
    return [*class_rows(one._replace(states=None), pending=True)][:SHOWN]


def _iso(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _minute(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%MZ")

"""Sums of what one transaction changes, so that totals add up and cost one upsert a line."""

from __future__ import annotations

from s3flow.state import sql
from s3flow.state.steps import Each, Steps

# flow id, bucket id, state code, reason, method, proof
Line = tuple[int, int, int, str, str, str]


class Deltas:
    """What a transaction adds to and takes from the totals and the counts of dropped fields.

    A field is counted for the version a row holds now: *dropped* texts are what the row's column
    said before and says after, names joined by commas.
    """

    __slots__ = ("_fields", "_lines")

    def __init__(self) -> None:
        self._lines: dict[Line, list[int]] = {}
        self._fields: dict[tuple[int, str], int] = {}

    def count(self, line: Line, objects: int, size: int) -> None:
        """Add *objects* of together *size* bytes to a line; both may be negative."""
        sums = self._lines.get(line)
        if sums is None:
            self._lines[line] = [objects, size]
        else:
            sums[0] += objects
            sums[1] += size

    def dropped(self, flow_id: int, before: str, after: str) -> None:
        """Count the fields of *after* instead of those of *before*."""
        for text, step in ((before, -1), (after, 1)):
            for field in text.split(",") if text else ():
                at = (flow_id, field)
                self._fields[at] = self._fields.get(at, 0) + step

    def write(self) -> Steps[None]:
        """Put the sums into the tables; to be called last in the same transaction."""
        lines = [(*line, *sums) for line, sums in self._lines.items() if any(sums)]
        if lines:
            yield Each(sql.ADD_TOTAL, lines)
        fields = [(*at, objects) for at, objects in self._fields.items() if objects]
        if fields:
            yield Each(sql.ADD_DROPPED, fields)

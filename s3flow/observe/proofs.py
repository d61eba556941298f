"""What `s3flow verify` shows: a line for each copy that is not equal, and the counts by proof."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from s3flow.engine.reverify import DIFFERENT, Copy, Looked, Result
from s3flow.errors import S3flowError
from s3flow.observe.text import shown, size

UNPROVEN = frozenset({Result.SIZE_ONLY, Result.NOT_COMPARED})
_WORDS = {
    Result.SIZE_ONLY: "by size alone",
    Result.NOT_COMPARED: "not compared",
    Result.MISSING: "missing",
    Result.DIFFERS: "not equal",
    Result.SOURCE_CHANGED: "changed at the source since",
}


@dataclass(slots=True)
class Proven:
    """The counts of a flow. *uncopied*: objects that the state says are pending or have failed."""

    flow: str
    share: float = 1.0
    uncopied: int = 0
    marked: int = 0
    buckets: int = 0  # that could not be listed
    bytes: int = 0
    results: Counter[Result] = field(default_factory=Counter)
    proofs: Counter[str] = field(default_factory=Counter)

    def count(self, copy: Copy, looked: Looked) -> None:
        """Count a copy that was looked at."""
        self.results[looked.result] += 1
        self.bytes += copy.transfer.size
        if looked.result is Result.PROVEN:
            self.proofs[str(looked.proof)] += 1

    @property
    def objects(self) -> int:
        """How many were looked at."""
        return self.results.total()

    @property
    def different(self) -> int:
        """How many are not what the source has."""
        return sum(self.results[result] for result in DIFFERENT)

    @property
    def unproven(self) -> int:
        """How many, and buckets, could not be compared by their content."""
        return sum(self.results[result] for result in UNPROVEN) + self.buckets


def line(flow: str, copy: Copy, looked: Looked, *, as_json: bool) -> str:
    """Tell of a copy, in one line."""
    it = copy.transfer
    message = looked.message
    if copy.gone and looked.result in DIFFERENT:
        message += "; its source was deleted by the move: only another copy can replace it"
    if not as_json:
        place = f"{shown(it.bucket)}/{shown(it.key)}"
        return f"{flow}\t{place}\t{looked.result}\t{shown(message)}"
    try:
        key = {"key": it.key.decode()}
    except UnicodeDecodeError:
        key = {"key_hex": it.key.hex()}
    told = {"flow": flow, "bucket": it.bucket, **key, "result": looked.result, "message": message}
    return json.dumps(told)


def bucket_line(flow: str, bucket: str, error: S3flowError, *, as_json: bool) -> str:
    """Tell of a bucket that could not be listed."""
    if as_json:
        told = {"flow": flow, "bucket": bucket, "result": "not_listed", "message": str(error)}
        return json.dumps(told)
    return f"{flow}\t{shown(bucket)}\tnot_listed\t{shown(str(error))}"


def summary(proven: Sequence[Proven], *, interrupted: bool) -> list[str]:
    """Sum up for people: a line for each flow."""
    end = "; INTERRUPTED: these are not all" if interrupted else ""
    return [_sentence(one) + end for one in proven]


def _sentence(one: Proven) -> str:
    sample = "" if one.share >= 1 else f" (a sample of {one.share:.4%})".replace("0%", "%")
    words = [f"{one.objects:,} copies looked at{sample}, {size(one.bytes)}"]
    good = ", ".join(f"{proof} {count:,}" for proof, count in sorted(one.proofs.items()))
    words.append(f"{one.proofs.total():,} proven" + (f" ({good})" if good else ""))
    words += [f"{one.results[it]:,} {told}" for it, told in _WORDS.items() if one.results[it]]
    if one.buckets:
        words.append(f"{one.buckets:,} buckets that cannot be listed")
    if one.marked:
        words.append(f"{one.marked:,} marked as failed: s3flow retry copies them again")
    if one.uncopied:
        words.append(f"{one.uncopied:,} that are not copied yet")
    return f"{one.flow}: " + "; ".join(words)


def summary_json(proven: Sequence[Proven], *, interrupted: bool) -> str:
    """Sum up for programs: the last line."""
    flows = [
        {
            "name": one.flow,
            "sample": one.share,
            "objects": one.objects,
            "bytes": one.bytes,
            "results": {result: one.results[result] for result in Result},
            "proofs": dict(one.proofs),
            "marked": one.marked,
            "not_copied": one.uncopied,
            "buckets_not_listed": one.buckets,
        }
        for one in proven
    ]
    return json.dumps({"flows": flows, "interrupted": interrupted})

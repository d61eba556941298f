"""The promises as checks on plain data: what the two ends hold, what was ever written, what the state says.

The numbers are those of the invariants: I1 no source is gone without an equal copy, I2 no copy is
anything but one version, I3 no final name of a folder holds a part of one, I4 no upload of ours is left,
I5 the state claims nothing that fails these, I6 doing all again changes nothing, I7 no secret comes out.
Each check gives what it found, [] when the promise was kept; `hold_to` raises it as `Broken`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from tests.torture.programme import Broken

Content = (
    bytes | str
)  # the bytes, or a digest of them: the same of both for everything that is compared
DONE = frozenset({"verified", "deleted"})
PENDING = frozenset({"discovered", "transferring", "transferred", "restore_requested", "restoring"})
TOLD = 20  # findings of one check; more of the same say nothing


class Version(NamedTuple):
    """What somebody wrote at the source. *etag* is "" where it is not known."""

    content: Content
    etag: str = ""


class Claim(NamedTuple):
    """What the state says of an object; *state* by the name that it has in the state."""

    key: bytes
    state: str
    etag: str = ""
    reason: str = ""


@dataclass(slots=True)
class Seen:
    """What there is at a moment when nothing runs. Keys are the source's, also for the target.

    *written*: all versions that people ever put at the source, by key, in their order; one that was
    put again is there again. *removed*: keys that people deleted themselves after the last of them.
    *touched*: keys whose copies others than s3flow took away or changed: they may be anything.
    *uploads* are those that the target holds unfinished, *continued* those that the state means to
    continue or to remove.
    """

    source: Mapping[bytes, Content]
    target: Mapping[bytes, Content]
    written: Mapping[bytes, Sequence[Version]]
    removed: Collection[bytes] = frozenset()
    touched: Collection[bytes] = frozenset()
    claims: Sequence[Claim] = ()
    uploads: Collection[str] = ()
    continued: Collection[str] = ()
    strays: Sequence[str] = field(default_factory=tuple)  # unfinished files, as they are named


def no_source_lost(seen: Seen) -> list[str]:
    """I1: what people wrote last, and did not delete, is at the source or its equal at the target."""
    return _some(
        f"I1: {key!r} is gone from the source and its copy is {_is(seen.target.get(key))},"
        f" not {_is(versions[-1].content)}"
        for key, versions in seen.written.items()
        if versions
        and not (key in seen.source or key in seen.removed or key in seen.touched)
        and seen.target.get(key) != versions[-1].content
    )


def no_mixed_copy(seen: Seen) -> list[str]:
    """I2, and I3 for a folder: each object at the target is one single version of its source."""
    return _some(
        f"I2: the copy of {key!r} is {_is(copy)}, which is no version of it"
        for key, copy in seen.target.items()
        if key not in seen.touched
        and all(copy != version.content for version in seen.written.get(key, ()))
    )


def no_upload_left(seen: Seen, *, at_rest: bool = False) -> list[str]:
    """I4: nothing unfinished is left that nobody knows of; *at_rest*: when all is done, nothing at all."""
    known = () if at_rest else seen.continued
    found = [f"I4: upload {it} is left" for it in sorted(set(seen.uploads).difference(known))]
    return _some([*found, *(f"I3: {name} is left" for name in seen.strays)])


def no_empty_claim(seen: Seen) -> list[str]:
    """I5: what the state calls done has a copy that is its version or a later one."""
    return _some(
        f"I5: {claim.key!r} is {claim.state} as {claim.etag!r}, and its copy is"
        f" {_is(seen.target.get(claim.key))}"
        for claim in seen.claims
        if claim.state in DONE
        and claim.key not in seen.touched
        and all(
            seen.target.get(claim.key) != content
            for content in _since(seen.written.get(claim.key, ()), claim.etag)
        )
    )


def all_arrived(seen: Seen, *, moved: bool = False) -> list[str]:
    """When all is done: what people want is at the target; with *moved* the source is empty as well."""
    found = [
        f"I1: the copy of {key!r} is {_is(seen.target.get(key))}, not {_is(versions[-1].content)}"
        for key, versions in seen.written.items()
        if versions and not (key in seen.removed or key in seen.touched)
        if seen.target.get(key) != versions[-1].content
    ]
    left = [f"I1: {key!r} was not moved" for key in seen.source] if moved else []
    return _some(found + left)


def nothing_pending(seen: Seen) -> list[str]:
    """When s3flow says that it is done: each object has an outcome."""
    return _some(
        f"P3: all is said to be done, and {claim.key!r} is {claim.state}"
        for claim in seen.claims
        if claim.state in PENDING
    )


def nothing_changed(before: Seen, after: Seen) -> list[str]:
    """I6: doing all again, or hearing of it again, changed neither an object nor a claim."""
    pairs = [
        ("source", dict(before.source), dict(after.source)),
        ("target", dict(before.target), dict(after.target)),
        ("state", _by_key(before.claims), _by_key(after.claims)),
    ]
    return _some(
        f"I6: the {name} had {_is(old.get(key))} for {key!r} and has {_is(new.get(key))}"
        for name, old, new in pairs
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key)
    )


def no_secret_told(secrets: Collection[str], outputs: Mapping[str, str]) -> list[str]:
    """I7: no output, by its name, shows one of *secrets*; a finding does not show it either."""
    return _some(
        f"I7: {name} shows secret number {number} of {len(secrets)}"
        for name, text in outputs.items()
        for number, secret in enumerate(sorted(secrets), 1)
        if secret in text
    )


def kept(seen: Seen) -> list[str]:
    """Check what holds at any moment, also after a crash."""
    return [*no_source_lost(seen), *no_mixed_copy(seen), *no_empty_claim(seen)]


def kept_at_rest(seen: Seen, *, moved: bool = False) -> list[str]:
    """Check what holds once s3flow says that nothing is left to do."""
    return [*kept(seen), *all_arrived(seen, moved=moved), *no_upload_left(seen, at_rest=True)]


def hold_to(found: Sequence[str], repeat: str) -> None:
    """Raise `Broken` for what was found; *repeat* is the command that finds it again."""
    if found:
        raise Broken("\n  ".join([f"{len(found)} promises broken; repeat: {repeat}", *found]))


def _since(versions: Sequence[Version], etag: str) -> Iterator[Content]:
    """Give the version that has *etag* and all later ones: the state may lag, it never leads."""
    if not etag:
        yield from (version.content for version in versions)
        return
    begun = False
    for version in versions:
        begun = begun or version.etag in ("", etag)
        if begun:
            yield version.content


def _by_key(claims: Iterable[Claim]) -> dict[bytes, Content]:
    return {it.key: " ".join((it.state, it.etag, it.reason)) for it in claims}


def _is(content: Content | None) -> str:
    if content is None:
        return "nothing"
    shown = repr(content[:24]) + ("…" if len(content) > 24 else "")
    return f"{shown} ({len(content):,})"


def _some(found: Iterable[str]) -> list[str]:
    every = list(found)
    more = [f"… and {len(every) - TOLD} more of these"] if len(every) > TOLD else []
    return every[:TOLD] + more

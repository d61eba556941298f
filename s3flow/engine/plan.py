"""Pure decisions: which objects go, under which key, by which method, cut where."""

from __future__ import annotations

import fnmatch
import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from s3flow.errors import TooLarge
from s3flow.model import MIB, Filters, Flow, Limits, Listed, Method, Span, State, Transfer

_MD5 = re.compile(r"[0-9a-f]{32}")
_MULTIPART = re.compile(r"[0-9a-f]{32}-([1-9][0-9]{0,4})")


# --- names -----------------------------------------------------------------------------------


def target_bucket(flow: Flow, bucket: str) -> str:
    """Give the target bucket for objects of the source *bucket*."""
    return bucket if flow.target.bucket == "{bucket}" else flow.target.bucket


def target_key(flow: Flow, key: bytes) -> bytes:
    """Map a source key: the source's prefix goes, rewrites apply, the target's prefix comes."""
    relative = key[len(flow.source.prefix) :]
    return flow.target.prefix + (rewrite(flow, relative) if flow.rewrite else relative)


def rewrite(flow: Flow, relative: bytes) -> bytes:
    """Apply the first rewrite whose prefix matches."""
    for old, new in flow.rewrite:
        if relative.startswith(old.encode()):
            return new.encode() + relative[len(old.encode()) :]
    return relative


def rivals(flow: Flow, key: bytes, *, is_path: bool) -> list[bytes]:
    """Name the other source keys that would want the same place at the target.

    Those that a rewrite maps onto the same key and, where the target is a tree of files
    (*is_path*), those that would have to be a file where this key needs a directory.
    The one that comes first in byte order gets the place, on every run.
    """
    if not flow.rewrite and not is_path:
        return []
    prefix = flow.source.prefix
    mapped = rewrite(flow, key[len(prefix) :])
    wanted = [mapped]
    if is_path:
        trimmed = mapped.rstrip(b"/")
        wanted += [mapped[:cut] for cut in _slashes(trimmed)]
        wanted += [trimmed] if trimmed != mapped else []
    found = [prefix + source for place in wanted for source in _preimages(flow, place)]
    return [rival for rival in found if rival != key]


def _slashes(name: bytes) -> list[int]:
    return [index for index, byte in enumerate(name) if byte == 0x2F]


def _preimages(flow: Flow, mapped: bytes) -> Iterator[bytes]:
    if not flow.rewrite:
        yield mapped
        return
    candidates = {mapped}
    for old, new in flow.rewrite:
        if mapped.startswith(new.encode()):
            candidates.add(old.encode() + mapped[len(new.encode()) :])
    yield from (source for source in candidates if rewrite(flow, source) == mapped)


# --- filters ---------------------------------------------------------------------------------

Skip = Callable[[Listed, float], str]


def compile_filters(filters: Filters, prefix: bytes) -> Skip | None:
    """Turn *filters* into one function (entry, now in seconds) -> reason to skip, "" to take it.

    None when every object is taken, so that a listing of millions pays for no call.
    """
    if filters == Filters():
        return None
    included = _globs(filters.include)
    excluded = _globs(filters.exclude)

    def skip(entry: Listed, now: float) -> str:
        if included or excluded:
            name = entry.key[len(prefix) :].decode("utf-8", "surrogateescape")
            if included and not any(glob.match(name) for glob in included):
                return "not_included"
            if any(glob.match(name) for glob in excluded):
                return "excluded"
        return _out_of_bounds(filters, entry, now)

    return skip


def _globs(patterns: Sequence[str]) -> list[re.Pattern[str]]:
    return [re.compile(fnmatch.translate(pattern)) for pattern in patterns]


def _out_of_bounds(filters: Filters, entry: Listed, now: float) -> str:
    age = now - entry.modified / 1000
    if filters.storage_classes and entry.storage_class not in filters.storage_classes:
        return "storage_class"
    if filters.min_size is not None and entry.size < filters.min_size:
        return "too_small"
    if filters.max_size is not None and entry.size > filters.max_size:
        return "too_big"
    if filters.min_age is not None and age < filters.min_age:
        return "too_young"
    if filters.max_age is not None and age > filters.max_age:
        return "too_old"
    return ""


def target_storage_class(flow: Flow, source_class: str) -> str:
    """Say which storage class an object gets: the flow's one, the mapped one, or its own."""
    return flow.storage_class or flow.storage_class_map.get(source_class, source_class)


# --- method and layout -----------------------------------------------------------------------


def is_md5(etag: str) -> bool:
    """Say whether *etag* has the form of an MD5: that of a single-part, not KMS-encrypted object."""
    return _MD5.fullmatch(etag) is not None


def parts_in(etag: str) -> int:
    """Say how many parts a multipart ETag names; 0 for any other."""
    match = _MULTIPART.fullmatch(etag)
    return int(match[1]) if match else 0


def choose_method(
    flow: Flow, limits: Limits, size: int, etag: str, *, inside: bool = False
) -> Method:
    """Choose how an object goes, through s3flow or *inside* the store, which copies by itself.

    An object that was uploaded in parts goes in the same parts to a store with ETags, whatever
    its size: only then is the target's ETag the source's.
    """
    if size > limits.max_object_size:
        raise TooLarge(
            f"{size:,} bytes are more than the target takes ({limits.max_object_size:,})"
        )
    if inside:
        in_parts = size > limits.max_put_size or (size and "-" in etag and parts_in(etag))
        return Method.SERVER_MULTIPART if in_parts else Method.SERVER_COPY
    if size > min(flow.multipart_threshold, limits.max_put_size):
        return Method.MULTIPART
    if limits.etags and size and parts_in(etag):
        return Method.MULTIPART
    return Method.PUT


class Layout(NamedTuple):
    """Where an object is cut: every part has *part_size* bytes, the last one what is left.

    *of_source*: these are the source's own boundaries, as far as anyone can tell.
    """

    size: int
    part_size: int
    of_source: bool = False

    @property
    def parts(self) -> int:
        """The number of parts."""
        return ceil_div(self.size, self.part_size)

    def span(self, number: int) -> Span:
        """Give the bytes of part *number*, counted from 1."""
        start = (number - 1) * self.part_size
        return Span(start, min(start + self.part_size, self.size))


def ceil_div(dividend: int, divisor: int) -> int:
    """Divide, rounded up, in integers: floats lose bytes of large objects."""
    return -(-dividend // divisor)


def fit_layout(size: int, wanted: int, limits: Limits) -> Layout:
    """Cut *size* bytes into parts of about *wanted*, all equal but the last, within *limits*.

    R2 refuses an upload whose parts differ in size (the last excepted), so no part ever grows.
    """
    least = ceil_div(ceil_div(size, limits.max_parts), MIB) * MIB
    wanted = wanted if wanted * limits.max_parts >= size else least
    part_size = min(max(wanted, limits.min_part_size), limits.max_part_size)
    if part_size * limits.max_parts < size:
        raise TooLarge(f"{size:,} bytes do not fit {limits.max_parts:,} parts of {part_size:,}")
    return Layout(size, part_size)


def source_layout(size: int, etag: str, first_part: int | None, limits: Limits) -> Layout | None:
    """Find the boundaries of the source's own parts, or None where the target cannot repeat them.

    *first_part* is the size of part 1 as the source told it, None where it does not say; then the
    usual sizes of the usual tools are tried, and the ETag at the end tells whether it was right.
    """
    count = parts_in(etag)
    if not count or not size:
        return None
    for part_size in [first_part] if first_part else _usual_part_sizes(size, count):
        if ceil_div(size, part_size) != count or part_size > limits.max_part_size:
            continue
        if count == 1 or part_size >= limits.min_part_size:
            return Layout(size, part_size, of_source=True)
    return None


def _usual_part_sizes(size: int, count: int) -> list[int]:
    # aws-cli, boto3: 8 MiB; s3cmd: 15; rclone, older SDKs: 5; MinIO's mc: 16; s5cmd: 50; and powers of two.
    usual = [8, 5, 16, 15, 10, 50, 32, 64, 100, 128, 256, 512, 1024]
    fitting = [n * MIB for n in usual if ceil_div(size, n * MIB) == count]
    return fitting or [ceil_div(ceil_div(size, count), MIB) * MIB]


def as_transfer(flow: str, bucket: str, entry: Listed) -> Transfer:
    """Make of a listed object a transfer that no state knows."""
    return Transfer(
        id=0,
        flow=flow,
        bucket=bucket,
        key=entry.key,
        size=entry.size,
        etag=entry.etag,
        modified=entry.modified,
        storage_class=entry.storage_class,
        state=State.DISCOVERED,
        generation=0,
        attempts=0,
        upload_id=None,
        part_size=None,
    )


def transfer_token(source: str, transfer: Transfer) -> str:
    """Name a source version, so that a target object can show whose copy it is."""
    fields = (source, transfer.bucket, transfer.etag, str(transfer.size), str(transfer.modified))
    digest = hashlib.sha256("\0".join(fields).encode() + b"\0" + transfer.key)
    return digest.hexdigest()[:32]

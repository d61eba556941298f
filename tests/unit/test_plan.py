"""Pure decisions: keys, filters, methods, layouts."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from s3flow.engine import plan
from s3flow.errors import TooLarge
from s3flow.model import GIB, MIB, Filters, Flow, Limits, Listed, Method, Place, State, Transfer

S3 = Limits()
FLOW = Flow("f", Place("a", "b", b""), Place("c", "d", b""), multipart_threshold=64 * MIB)
LARGEST = 50 * 1000**4
MD5 = hashlib.md5(b"").hexdigest()

# The sizes where layouts change: multiples of a MiB, of 10,000 parts of each of them, and the ends.
_EDGES = [0, MIB, 5 * MIB, 32 * MIB, 64 * MIB, 5 * GIB, LARGEST]
_EDGES += [parts * size * MIB for parts in (1, 2, 9_999, 10_000) for size in (5, 8, 32, 33, 4769)]
sizes = st.one_of(
    st.integers(0, LARGEST),
    st.builds(
        lambda edge, by: min(max(0, edge + by), LARGEST),
        st.sampled_from(_EDGES),
        st.integers(-1, 1),
    ),
)
parts_of = st.one_of(st.integers(1, 6 * GIB), st.sampled_from([5 * MIB, 8 * MIB, 32 * MIB, GIB]))


def listed(key: bytes = b"k", size: int = 1, modified: int = 0, cls: str = "STANDARD") -> Listed:
    return Listed(key, size, MD5, modified, cls)


def transfer(key: bytes = b"k", etag: str = MD5, size: int = 1) -> Transfer:
    return Transfer(1, "f", "b", key, size, etag, 0, "STANDARD", State.DISCOVERED, 1, 0, None, None)


# --- layouts ---------------------------------------------------------------------------------


@given(size=sizes, wanted=parts_of)
def test_every_size_fits_the_limits_of_s3(size: int, wanted: int) -> None:
    layout = plan.fit_layout(size, wanted, S3)
    assert layout.parts <= 10_000
    assert 5 * MIB <= layout.part_size <= 5 * GIB


@given(size=sizes, wanted=parts_of)
def test_the_parts_tile_the_object(size: int, wanted: int) -> None:
    layout = plan.fit_layout(size, wanted, S3)
    spans = [layout.span(number) for number in range(1, layout.parts + 1)]
    assert sum(span.size for span in spans) == size
    position = 0
    for span in spans:
        assert span.start == position
        assert span.size == layout.part_size or span is spans[-1]
        assert span.size > 0
        position = span.stop
    assert position == size


def test_a_wish_that_fits_is_kept() -> None:
    assert plan.fit_layout(10_000 * 8 * MIB, 8 * MIB, S3).part_size == 8 * MIB
    assert plan.fit_layout(10_000 * 8 * MIB + 1, 8 * MIB, S3).part_size == 9 * MIB


def test_what_no_layout_holds_is_refused() -> None:
    with pytest.raises(TooLarge, match="10,000 parts"):
        plan.fit_layout(10_000 * 5 * GIB + 1, 8 * MIB, S3)


@given(size=st.integers(1, 10**13), part_size=st.integers(5 * MIB, 5 * GIB))
def test_boundaries_that_the_source_tells_are_repeated(size: int, part_size: int) -> None:
    count = plan.ceil_div(size, part_size)
    assume(count <= 10_000)
    layout = plan.source_layout(size, f"{MD5}-{count}", min(part_size, size), S3)
    if count > 1:
        assert layout == plan.Layout(size, part_size, of_source=True)
    else:
        assert layout == plan.Layout(size, min(part_size, size), of_source=True)


@given(mib=st.sampled_from([8, 5, 16, 15, 50, 64]), size=st.integers(1, 10**11))
def test_boundaries_that_nobody_tells_are_guessed_with_the_right_number_of_parts(
    mib: int, size: int
) -> None:
    count = plan.ceil_div(size, mib * MIB)
    assume(count <= 10_000)
    layout = plan.source_layout(size, f"{MD5}-{count}", None, S3)
    assert layout is not None
    assert layout.parts == count
    assert layout.of_source


@pytest.mark.parametrize("etag", [MD5, "", "abc", f"{MD5}-0", f"{MD5}-x", MD5.upper() + "-2"])
def test_an_etag_without_parts_gives_no_layout(etag: str) -> None:
    assert plan.source_layout(100 * MIB, etag, None, S3) is None


def test_parts_that_the_target_refuses_are_not_repeated() -> None:
    assert plan.source_layout(3 * MIB, f"{MD5}-3", MIB, S3) is None
    assert plan.source_layout(3 * MIB, f"{MD5}-1", 3 * MIB, S3) is not None  # one may be small
    assert plan.source_layout(12 * GIB, f"{MD5}-2", 6 * GIB, S3) is None


def test_a_first_part_that_contradicts_the_count_gives_no_layout() -> None:
    assert plan.source_layout(100 * MIB, f"{MD5}-3", 10 * MIB, S3) is None


# --- methods ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "etag", "method"),
    [
        (0, MD5, Method.PUT),
        (0, f"{MD5}-1", Method.PUT),  # an upload has at least one part, of at least one byte
        (1, f"{MD5}-1", Method.MULTIPART),
        (64 * MIB, MD5, Method.PUT),
        (64 * MIB + 1, MD5, Method.MULTIPART),
        (64 * MIB, "opaque", Method.PUT),
        (LARGEST, MD5, Method.MULTIPART),
    ],
)
def test_the_method_follows_size_and_origin(size: int, etag: str, method: Method) -> None:
    assert plan.choose_method(FLOW, S3, size, etag) is method


def test_files_are_cut_by_size_alone() -> None:
    disk = replace(S3, etags=False)
    assert plan.choose_method(FLOW, disk, 9 * MIB, f"{MD5}-2") is Method.PUT


def test_one_put_never_exceeds_what_the_target_takes_in_one() -> None:
    small = replace(S3, max_put_size=10 * MIB)
    assert plan.choose_method(FLOW, small, 10 * MIB, MD5) is Method.PUT
    assert plan.choose_method(FLOW, small, 10 * MIB + 1, MD5) is Method.MULTIPART


def test_what_the_target_cannot_hold_is_refused_before_it_is_read() -> None:
    with pytest.raises(TooLarge):
        plan.choose_method(FLOW, S3, LARGEST + 1, MD5)


# --- names -----------------------------------------------------------------------------------

keys = st.binary(min_size=1, max_size=40)
prefixes = st.sampled_from(["", "a", "a/", "ab", "b", "b/", "x/a", "é"])
# Few targets and a tiny alphabet: keys meet at the target often.
rules = st.lists(st.tuples(prefixes, st.sampled_from(["", "x/"])), max_size=4).map(tuple)
near = st.builds(
    lambda start, rest: (start + rest).encode(), prefixes, st.sampled_from(["", "a", "a/b", "/"])
).filter(bool)


@given(key=keys, prefix=st.binary(max_size=10), target=st.binary(max_size=10))
def test_no_byte_of_a_key_is_lost(key: bytes, prefix: bytes, target: bytes) -> None:
    assume(b"{bucket}" not in target)
    flow = Flow("f", Place("a", "b", prefix), Place("c", "d", target))
    assert plan.target_key(flow, prefix + key) == target + key


def test_the_first_rewrite_that_matches_wins() -> None:
    flow = replace(FLOW, rewrite=(("a/b/", "x/"), ("a/", "y/"), ("", "z/")))
    assert plan.rewrite(flow, b"a/b/c") == b"x/c"
    assert plan.rewrite(flow, b"a/c") == b"y/c"
    assert plan.rewrite(flow, b"c") == b"z/c"


@given(first=near, second=near, rewrites=rules, is_path=st.booleans())
def test_keys_that_meet_at_the_target_are_rivals_of_each_other(
    first: bytes, second: bytes, rewrites: tuple[tuple[str, str], ...], is_path: bool
) -> None:
    flow = replace(FLOW, source=Place("a", "b", b"p/"), rewrite=rewrites)
    first, second = b"p/" + first, b"p/" + second
    meets = plan.target_key(flow, first) == plan.target_key(flow, second)
    if meets and first != second:
        assert second in plan.rivals(flow, first, is_path=is_path)
        assert first in plan.rivals(flow, second, is_path=is_path)
    elif not is_path:
        assert second not in plan.rivals(flow, first, is_path=False)


@given(above=near, rest=near, rewrites=rules)
def test_a_file_where_a_directory_is_needed_is_a_rival(
    above: bytes, rest: bytes, rewrites: tuple[tuple[str, str], ...]
) -> None:
    flow, below = replace(FLOW, rewrite=rewrites), above + b"/" + rest
    place, inner = plan.target_key(flow, above), plan.target_key(flow, below)
    assume(inner.startswith(place + b"/") and not place.endswith(b"/"))
    assert above in plan.rivals(flow, below, is_path=True)


@given(key=keys)
def test_no_key_is_its_own_rival(key: bytes) -> None:
    assert key not in plan.rivals(FLOW, key, is_path=True)
    assert plan.rivals(FLOW, key, is_path=False) == []


# --- filters ---------------------------------------------------------------------------------


def verdict(filters: Filters, entry: Listed, prefix: bytes = b"", now: float = 1000.0) -> str:
    skip = plan.compile_filters(filters, prefix)
    assert skip is not None
    return skip(entry, now)


def test_without_filters_nothing_is_asked() -> None:
    assert plan.compile_filters(Filters(), b"") is None


@pytest.mark.parametrize(
    ("include", "exclude", "key", "reason"),
    [
        (("*.jpg",), (), b"a/b/c.jpg", ""),  # * crosses slashes
        (("*.jpg",), (), b"a.png", "not_included"),
        (("*.jpg", "*.png"), (), b"a.png", ""),
        ((), ("tmp/*",), b"tmp/x", "excluded"),
        ((), ("tmp/*",), b"x/tmp/x", ""),  # the whole key, from its start
        (("*.jpg",), ("thumb*",), b"thumb.jpg", "excluded"),  # exclude wins
        (("*.JPG",), (), b"a.jpg", "not_included"),  # keys have cases
        (("\udcff*",), (), b"\xff\xfe", ""),  # not UTF-8, and still nameable
        (("*",), (), b"\xff\n\x00", ""),
        (("?",), (), "é".encode(), ""),  # one character, two bytes
    ],
)
def test_globs(include: tuple[str, ...], exclude: tuple[str, ...], key: bytes, reason: str) -> None:
    assert verdict(Filters(include=include, exclude=exclude), listed(key)) == reason


@given(key=keys)
def test_a_star_takes_every_key(key: bytes) -> None:
    assert verdict(Filters(include=("*",)), listed(key)) == ""
    assert verdict(Filters(exclude=("*",)), listed(key)) == "excluded"


def test_globs_see_the_key_without_the_prefix_of_the_source() -> None:
    assert verdict(Filters(include=("x*",)), listed(b"p/x1"), b"p/") == ""
    assert verdict(Filters(include=("p/*",)), listed(b"p/x1"), b"p/") == "not_included"


@given(size=st.integers(0, 100), least=st.integers(0, 100), most=st.integers(0, 100))
def test_sizes_are_bounds_that_count_in(size: int, least: int, most: int) -> None:
    reason = verdict(Filters(min_size=least, max_size=most), listed(size=size))
    assert (reason == "") == (least <= size <= most)


@pytest.mark.parametrize(
    ("filters", "age", "reason"),
    [
        (Filters(min_age=60), 59, "too_young"),
        (Filters(min_age=60), 60, ""),
        (Filters(max_age=60), 60, ""),
        (Filters(max_age=60), 61, "too_old"),
        (Filters(min_age=0), -5, "too_young"),  # from a clock that is ahead of ours
    ],
)
def test_ages(filters: Filters, age: int, reason: str) -> None:
    assert verdict(filters, listed(modified=(1000 - age) * 1000)) == reason


def test_storage_classes() -> None:
    filters = Filters(storage_classes=("STANDARD", "GLACIER_IR"))
    assert verdict(filters, listed(cls="GLACIER_IR")) == ""
    assert verdict(filters, listed(cls="GLACIER")) == "storage_class"


def test_the_storage_class_is_the_flows_or_the_mapped_or_its_own() -> None:
    mapped = replace(FLOW, storage_class_map={"GLACIER": "STANDARD_IA"})
    assert plan.target_storage_class(FLOW, "GLACIER") == "GLACIER"
    assert plan.target_storage_class(mapped, "GLACIER") == "STANDARD_IA"
    assert plan.target_storage_class(mapped, "STANDARD") == "STANDARD"
    assert plan.target_storage_class(replace(mapped, storage_class="X"), "GLACIER") == "X"


# --- tokens ----------------------------------------------------------------------------------


@given(
    first=st.tuples(keys, st.sampled_from([MD5, "e"]), st.integers(0, 2)),
    second=st.tuples(keys, st.sampled_from([MD5, "e"]), st.integers(0, 2)),
)
def test_a_token_names_one_version_of_one_object(
    first: tuple[bytes, str, int], second: tuple[bytes, str, int]
) -> None:
    one, other = transfer(*first), transfer(*second)
    same = plan.transfer_token("src", one) == plan.transfer_token("src", other)
    assert same == (one == other)
    assert plan.transfer_token("src", one) != plan.transfer_token("dst", one)


@pytest.mark.parametrize(
    "other",
    [{"bucket": "o"}, {"key": b"o"}, {"etag": "o"}, {"size": 2}, {"modified": 2}, {"flow": "o"}],
    ids=lambda other: next(iter(other)),
)
def test_a_token_names_a_version_of_an_object_whatever_the_flow(other: dict[str, Any]) -> None:
    one = plan.as_transfer("flow", "bucket", Listed(b"key", 1, "etag", 1, "STANDARD"))
    token = plan.transfer_token("src", one)
    assert (plan.transfer_token("src", one._replace(**other)) == token) is ("flow" in other)
    assert plan.transfer_token("other", one) != token


def test_no_part_is_smaller_than_the_target_takes() -> None:
    limits = Limits(min_part_size=5 * plan.MIB)
    assert plan.fit_layout(20 * plan.MIB, plan.MIB, limits).part_size == 5 * plan.MIB

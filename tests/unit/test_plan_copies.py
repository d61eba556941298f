"""Copies inside a store at true sizes: whole or in parts, and in parts that S3 takes."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3flow.engine import plan
from s3flow.model import GIB, MIB, Flow, Limits, Method, Place, Span

FLOW = Flow("f", Place("src", "from", b""), Place("dst", "to", b""))
S3 = Limits()
MD5 = "900150983cd24fb0d6963f7d28e17f72"
SIX_GB, LARGEST = 6 * 1000**3, 50 * 1000**4


@pytest.mark.parametrize(
    ("size", "etag", "method"),
    [
        (0, MD5, Method.SERVER_COPY),
        (1, MD5, Method.SERVER_COPY),
        (300 * MIB, MD5, Method.SERVER_COPY),  # the flow's threshold is for streams
        (5 * GIB, MD5, Method.SERVER_COPY),
        (5 * GIB + 1, MD5, Method.SERVER_MULTIPART),
        (SIX_GB, f"{MD5}-716", Method.SERVER_MULTIPART),
        (6 * MIB, f"{MD5}-2", Method.SERVER_MULTIPART),  # so that its ETag is repeated
        (LARGEST, f"{MD5}-10000", Method.SERVER_MULTIPART),
    ],
)
def test_what_one_request_cannot_copy_goes_in_parts(size: int, etag: str, method: Method) -> None:
    assert plan.choose_method(FLOW, S3, size, etag, inside=True) is method


def spans(layout: plan.Layout) -> list[Span]:
    return [layout.span(number) for number in range(1, layout.parts + 1)]


@pytest.mark.parametrize(
    ("size", "part", "parts"),
    [(SIX_GB, 32 * MIB, 179), (5 * GIB + 1, 32 * MIB, 161), (LARGEST, 4769 * MIB, 9_999)],
)
def test_parts_of_the_largest_objects_are_within_s3_s_limits(
    size: int, part: int, parts: int
) -> None:
    layout = plan.fit_layout(size, FLOW.part_size, S3)
    assert (layout.part_size, layout.parts) == (part, parts)
    cut = spans(layout)
    assert cut[0].start == 0
    assert cut[-1].stop == size
    assert all(one.stop == other.start for one, other in pairwise(cut))
    assert all(5 * MIB <= span.size <= 5 * GIB for span in cut[:-1])
    assert 0 < cut[-1].size <= 5 * GIB


@pytest.mark.parametrize(
    ("size", "first", "parts"),
    [(SIX_GB, 8 * MIB, 716), (SIX_GB, 64 * MIB, 90), (LARGEST, 5 * GIB, 9_314)],
)
def test_the_source_s_own_parts_are_kept(size: int, first: int, parts: int) -> None:
    layout = plan.source_layout(size, f"{MD5}-{parts}", first, S3)
    assert layout is not None
    assert (layout.part_size, layout.parts, layout.of_source) == (first, parts, True)


def test_parts_that_are_not_alike_are_cut_anew() -> None:
    # 6 GB in 100 parts of which the first has 5 MiB: no parts of one size give that.
    assert plan.source_layout(SIX_GB, f"{MD5}-100", 5 * MIB, S3) is None


@given(size=st.integers(5 * GIB + 1, LARGEST), wanted=st.integers(5 * MIB, 5 * GIB))
def test_any_size_and_wish_gives_parts_that_fit(size: int, wanted: int) -> None:
    layout = plan.fit_layout(size, wanted, S3)
    assert layout.parts <= 10_000
    assert 5 * MIB <= layout.part_size <= 5 * GIB
    assert layout.span(layout.parts).stop == size

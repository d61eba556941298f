"""Where a listing is cut into ranges: what is learned of the keys, and what a cut leaves on both sides."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3flow.engine.ranges import TOP, KeySpace
from s3flow.model import Flow, Place
from tests.unit.test_listing import names


def cuts(keys: Sequence[bytes], prefix: bytes = b"") -> list[bytes]:
    """Cut what follows the first hundredth; then the half with more keys, again and again."""
    keys = sorted(keys)
    space, made, end = KeySpace(prefix), list[bytes](), None
    cursor = keys[len(keys) // 100]
    space.learn([keys[0], keys[1], cursor])
    while len(made) < 12 and (cut := space.cut(cursor, end)) is not None:
        made.append(cut)
        before = [key for key in keys if cursor < key <= cut]
        behind = [key for key in keys if key > cut and (end is None or key <= end)]
        space.learn(behind[:5])
        if len(behind) > len(before):
            cursor = behind[4]
        else:
            end = cut
    return made


chance = random.Random(7)
SPACES = {
    "hex": [b"%032x" % chance.getrandbits(128) for _ in range(3000)],
    "numbers": [b"img_%07d.jpg" % number for number in range(3000)],
    "dates": [
        b"logs/%d/%02d/%02d" % (2019 + n % 5, n % 12 + 1, n % 28 + 1) + b"-%d" % n
        for n in range(3000)
    ],
    "long": [b"x" * 900 + b"/%08x" % chance.getrandbits(32) for _ in range(3000)],
    "chinese": ["".join(chance.choices("天地玄黃宇宙洪荒", k=8)).encode() for _ in range(3000)],
    "emoji": ["".join(chance.choices("😀😁😂🤣😃😄😅", k=8)).encode() for _ in range(3000)],
}


@pytest.mark.parametrize("name", SPACES)
def test_some_early_cut_leaves_much_on_both_sides(name: str) -> None:
    keys = sorted(set(SPACES[name]))
    made = cuts(keys)
    shares = [sum(key <= cut for key in keys) / len(keys) for cut in made]
    assert any(0.1 < share < 0.9 for share in shares), shares


@given(
    keys=st.sets(st.binary(min_size=1, max_size=6) | names, min_size=1, max_size=20),
    end=st.none() | st.binary(min_size=1, max_size=4) | names,
)
def test_a_cut_lies_between_and_is_utf8_whatever_was_seen(
    keys: set[bytes], end: bytes | None
) -> None:
    space = KeySpace(b"")
    space.learn(sorted(keys))
    for cursor in keys:
        cut = space.cut(cursor, end)
        if cut is not None:
            assert cursor < cut
            assert end is None or cut < end
            assert cut.decode().endswith(TOP)
            for size in range(1, len(cut.decode())):
                name = cut.decode()[:size]  # before the cut and not listed yet: so is all below it
                assert name.encode() <= cursor or f"{name}/{TOP}".encode() < cut
        assert space.left(min(keys), cursor, end, len(keys)) >= 0


def test_a_cut_is_never_longer_than_a_key_may_be() -> None:
    space = KeySpace(b"")
    keys = ["😀".encode() * 255 + b"ab%d" % n for n in range(3)]
    space.learn(keys)
    end: bytes | None = None
    for _ in range(20):
        cut = space.cut(keys[0], end)
        assert cut is None or len(cut) <= 1024
        end = cut or end
    assert space.cut(keys[0], end) is None


def test_keys_outside_the_prefix_are_not_cut_at() -> None:
    assert KeySpace(b"in/").cut(b"", None) is None
    assert KeySpace(b"").cut(b"\xff", None) is None


def test_flows_of_one_prefix_cut_below_it() -> None:
    made = cuts([b"in/" + key for key in SPACES["hex"]], b"in/")
    assert made
    assert all(cut.startswith(b"in/") for cut in made)


def test_a_flow_lists_in_eight_ranges_unless_told_otherwise() -> None:
    assert Flow("x", Place("a", "b", b""), Place("c", "d", b"")).list_concurrency == 8


@pytest.mark.parametrize("cursor", [f"b{TOP}", f"b{TOP}a", f"b{TOP}{TOP}", TOP, TOP * 2])
def test_what_lies_before_the_cursor_is_no_cut(cursor: str) -> None:
    space = KeySpace(b"")
    space.learn([b"a", b"b", f"b{TOP}".encode(), cursor.encode()])
    cut = space.cut(cursor.encode(), None)
    assert cut is None or cut > cursor.encode()


def test_no_cut_has_a_character_that_no_xml_can_repeat() -> None:
    space = KeySpace(b"")
    space.learn([b"a\x01" + bytes([each]) for each in range(1, 8)] + [b"a\x08"])
    for cursor in (b"a", b"a\x01", b"a\x01\x01"):
        cut = space.cut(cursor, b"a\x1f" + TOP.encode())
        assert cut is None or not set(cut[len(cursor) :]) & set(range(32))

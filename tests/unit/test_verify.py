"""The proof ladder: every rung, and that nothing unequal climbs it."""

from __future__ import annotations

import base64
import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3flow.engine import verify
from s3flow.engine.verify import CRC64, MD5, check_part, multipart_etag, prove
from s3flow.errors import Corrupted
from s3flow.model import Limits, ObjectInfo, Part, Proof, Stored
from s3flow.stores.crc64 import Crc64Nvme

DATA, OTHER = b"data", b"atad"
KEYED = ["aws:kms", "aws:kms:dsse", "customer"]


def md5(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


def crc(data: bytes) -> bytes:
    digest = Crc64Nvme().new()
    digest.update(memoryview(data))
    return digest.digest()


def crc_text(data: bytes) -> str:
    return base64.b64encode(crc(data)).decode()


def info(etag: str, *, checksum: str = "", encryption: str = "") -> ObjectInfo:
    sums = {"crc64nvme": checksum} if checksum else {}
    return ObjectInfo(len(DATA), etag, checksums=sums, encryption=encryption)


def stored(etag: str = "", *, checksum: str = "", encryption: str = "") -> Stored:
    sums = {"crc64nvme": checksum} if checksum else {}
    return Stored(len(DATA), etag, sums, encryption=encryption)


PLAIN = md5(DATA)
MULTI = f"{md5(b'parts')}-2"
SUM = crc_text(DATA)
PASSED_CRC = {CRC64: crc(DATA)}
PASSED_MD5 = {MD5: hashlib.md5(DATA, usedforsecurity=False).digest()}


@pytest.mark.parametrize(
    ("source", "target", "passed", "proof"),
    [
        # 1. checksum
        (info("x", checksum=SUM), stored("y", checksum=SUM), {}, Proof.CHECKSUM),
        (info("x"), stored("y", checksum=SUM), PASSED_CRC, Proof.CHECKSUM),
        (info(PLAIN, checksum=SUM), stored(PLAIN, checksum=SUM), {}, Proof.CHECKSUM),
        (info("x", checksum=SUM), stored(), PASSED_CRC, Proof.CHECKSUM),  # a file
        # A store with ETags that confirms nothing: reading right proves nothing of what it holds.
        (info("x", checksum=SUM), stored("y"), PASSED_CRC, Proof.SIZE),
        # 2. etag
        (info(PLAIN), stored(PLAIN), {}, Proof.ETAG),
        (info(MULTI), stored(MULTI), {}, Proof.ETAG),
        (info("opaque"), stored("opaque"), {}, Proof.SIZE),
        # 3. md5
        (info(MULTI), stored(PLAIN), PASSED_MD5, Proof.MD5),
        (info("opaque"), stored(PLAIN), PASSED_MD5, Proof.MD5),
        (info(PLAIN), stored(), PASSED_MD5, Proof.MD5),  # a file
        # 4. size
        (info(MULTI), stored(PLAIN), {}, Proof.SIZE),
        (info(PLAIN), stored(MULTI), PASSED_CRC, Proof.SIZE),
        (info(MULTI), stored(), PASSED_MD5, Proof.SIZE),
        (info(PLAIN), stored(), {}, Proof.SIZE),
    ],
)
def test_every_rung(
    source: ObjectInfo, target: Stored, passed: dict[str, bytes], proof: Proof
) -> None:
    assert prove(source, target, passed) is proof


@pytest.mark.parametrize(
    ("source", "target", "passed"),
    [
        (info("x", checksum=SUM), stored("y", checksum=crc_text(OTHER)), {}),
        (info("x"), stored("y", checksum=crc_text(OTHER)), PASSED_CRC),
        (info("x", checksum=crc_text(OTHER)), stored("y"), PASSED_CRC),
        (
            info(PLAIN, checksum=crc_text(OTHER)),
            stored(PLAIN),
            PASSED_CRC,
        ),  # an equal ETag saves nothing
        (info(PLAIN), stored(md5(OTHER)), {}),
        (info("opaque"), stored(md5(OTHER)), PASSED_MD5),
        (info(md5(OTHER)), stored("opaque"), PASSED_MD5),
        (info(md5(OTHER)), stored(), PASSED_MD5),
    ],
)
def test_every_difference_is_found(
    source: ObjectInfo, target: Stored, passed: dict[str, bytes]
) -> None:
    with pytest.raises(Corrupted):
        prove(source, target, passed)


@pytest.mark.parametrize("encryption", ["", *KEYED])
def test_nothing_is_equal_to_nothing_whatever_the_etags_say(encryption: str) -> None:
    source = ObjectInfo(0, MULTI, encryption=encryption)
    copy = Stored(0, md5(b""), {}, encryption=encryption)
    # A move may delete it: the marks of folders stayed behind where a key seals what is written.
    assert prove(source, copy, {}) is Proof.CHECKSUM


def test_a_difference_in_size_is_found_first() -> None:
    with pytest.raises(Corrupted, match="3 of 4 bytes"):
        prove(info(PLAIN), Stored(3, PLAIN), {})


@pytest.mark.parametrize("encryption", KEYED)
def test_the_etag_of_an_encrypted_source_is_compared_with_no_digest(encryption: str) -> None:
    source = info(md5(b"sealed"), encryption=encryption)
    assert verify.stated_md5(source) is None
    assert prove(source, stored(PLAIN), {}) is Proof.SIZE
    assert prove(source, stored(PLAIN), PASSED_MD5) is Proof.MD5  # of what passed
    assert prove(source, stored(), PASSED_MD5) is Proof.SIZE


@pytest.mark.parametrize("encryption", KEYED)
def test_the_etag_of_an_encrypted_target_is_compared_with_no_digest(encryption: str) -> None:
    sealed = stored(md5(b"sealed"), encryption=encryption)
    assert prove(info(PLAIN), sealed, PASSED_MD5) is Proof.SIZE
    assert prove(info(PLAIN, checksum=SUM), sealed, PASSED_CRC) is Proof.SIZE


@given(
    etags=st.tuples(*[st.sampled_from([PLAIN, md5(OTHER), MULTI, "opaque", ""])] * 2),
    sums=st.tuples(*[st.sampled_from(["", SUM, crc_text(OTHER)])] * 2),
    encryptions=st.tuples(*[st.sampled_from(["", "AES256", *KEYED])] * 2),
    passed=st.sampled_from([{}, PASSED_CRC, PASSED_MD5, {**PASSED_CRC, **PASSED_MD5}]),
)
def test_proof_stands_on_an_equal_pair_and_on_no_unequal_one(
    etags: tuple[str, str],
    sums: tuple[str, str],
    encryptions: tuple[str, str],
    passed: dict[str, bytes],
) -> None:
    source = info(etags[0] or "opaque", checksum=sums[0], encryption=encryptions[0])
    target = stored(etags[1], checksum=sums[1], encryption=encryptions[1])
    known = [each for each in sums if each]
    known += [base64.b64encode(passed[CRC64]).decode()] if CRC64 in passed else []
    try:
        proof = prove(source, target, passed)
    except Corrupted:
        digests = {each for each in (*etags, PLAIN) if len(each) == 32}
        assert len(set(known)) > 1 or len(digests) > 1
        return
    assert len(set(known)) <= 1
    if proof is Proof.CHECKSUM:
        assert len(known) >= 2
    if proof is Proof.ETAG:
        assert etags[0] == etags[1] != "opaque"
    if proof is Proof.MD5:
        assert PLAIN in etags


@pytest.mark.parametrize("encryption", ["", "AES256", *KEYED])
@pytest.mark.parametrize("etag", [PLAIN, MULTI, "opaque"])
def test_md5_is_computed_where_nothing_cheaper_proves(etag: str, encryption: str) -> None:
    stores, files = Limits(), Limits(etags=False)
    source = info(etag, encryption=encryption)
    states = etag == PLAIN and encryption not in KEYED
    stated = verify.stated_md5(source)
    assert verify.needs_md5(source, stores, stated) is not states
    assert verify.needs_md5(source, files, stated) is states
    assert not verify.needs_md5(info(etag, checksum=SUM, encryption=encryption), files, stated)


# --- parts -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("part", "passed", "proof"),
    [
        (Part(1, 4, "x", SUM), PASSED_CRC, Proof.CHECKSUM),
        (Part(1, 4, PLAIN, SUM), PASSED_CRC | PASSED_MD5, Proof.CHECKSUM),
        (Part(1, 4, PLAIN), PASSED_CRC | PASSED_MD5, Proof.MD5),
        (Part(1, 4, PLAIN), PASSED_CRC, None),
        (Part(1, 4, "opaque"), PASSED_CRC | PASSED_MD5, None),
        *((Part(1, 4, md5(b"sealed"), "", kind), PASSED_MD5, None) for kind in KEYED),
        (Part(1, 4, PLAIN, "", "AES256"), PASSED_MD5, Proof.MD5),
    ],
)
def test_what_a_part_shows(part: Part, passed: dict[str, bytes], proof: Proof | None) -> None:
    assert check_part(part, passed) is proof


@pytest.mark.parametrize(
    "part",
    [Part(3, 4, PLAIN, crc_text(OTHER)), Part(3, 4, md5(OTHER)), Part(3, 4, md5(OTHER), SUM)],
)
def test_a_part_that_differs_is_found(part: Part) -> None:
    if part.checksum == SUM:  # the checksum is the better witness
        assert check_part(part, PASSED_CRC | PASSED_MD5) is Proof.CHECKSUM
        return
    with pytest.raises(Corrupted, match="part 3"):
        check_part(part, PASSED_CRC | PASSED_MD5)


@given(st.lists(st.binary(), min_size=1, max_size=5))
def test_the_etag_of_parts_is_that_of_s3(pieces: list[bytes]) -> None:
    parts = [Part(n, len(piece), md5(piece)) for n, piece in enumerate(pieces, 1)]
    joined = b"".join(bytes.fromhex(part.etag) for part in parts)
    assert multipart_etag(parts) == f"{md5(joined)}-{len(pieces)}"


def test_parts_without_md5_etags_have_no_common_etag() -> None:
    assert multipart_etag([]) == ""
    assert multipart_etag([Part(1, 1, PLAIN), Part(2, 1, "opaque")]) == ""


@given(st.lists(st.binary(), max_size=6))
def test_checksums_of_adjacent_spans_join(pieces: list[bytes]) -> None:
    whole = crc(b"")
    for piece in pieces:
        whole = Crc64Nvme().combine(whole, crc(piece), len(piece))
    assert whole == crc(b"".join(pieces))

"""What says what a fragment is: its bytes, what is refused, and what may not be mixed."""

from __future__ import annotations

import zlib
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ring.timestamp import Timestamp
from storage.erasure.errors import BadFragment, BadPiece, MixedFragments
from storage.erasure.fragment import HEAD_BYTES, Fragment, Origin, agree, decode_fragment, encode_fragment
from storage.erasure.interface import Coding
from storage.erasure.layout import Layout

GOLDEN = Path(__file__).parents[2] / "golden" / "fragment-1.bin"
ORIGIN = Origin(bytes(range(16)), Timestamp(170000000012345, 2), "5d41402abc4b2a76b9719d911017c592", 2_500_000, Coding(4, 2))
FRAGMENT = Fragment(ORIGIN, 5, bytes.fromhex("00112233445566778899aabb"))


def test_golden_bytes() -> None:
    assert encode_fragment(FRAGMENT) == GOLDEN.read_bytes()
    assert decode_fragment(GOLDEN.read_bytes()) == FRAGMENT


@st.composite
def fragments(draw: st.DrawFn) -> Fragment:
    k = draw(st.integers(1, 10))
    coding = Coding(k, draw(st.integers(1, 10)), draw(st.integers(k, 1 << 20)))
    size = draw(st.integers(0, 20 * coding.segment_bytes))
    stamp = Timestamp(draw(st.integers(0, 10**15 - 1)), draw(st.integers(0, 2**32 - 1)))
    count = Layout(coding, size).stripe_count
    origin = Origin(draw(st.binary(min_size=16, max_size=16)), stamp, draw(st.text(max_size=40)), size, coding)
    return Fragment(origin, draw(st.integers(0, coding.count - 1)), draw(st.binary(min_size=4 * count, max_size=4 * count)))


@settings(deadline=None)
@given(fragments())
def test_what_is_encoded_is_decoded(fragment: Fragment) -> None:
    assert decode_fragment(memoryview(encode_fragment(fragment))) == fragment


@settings(deadline=None)
@given(fragments(), st.data())
def test_one_byte_that_is_wrong_is_noticed(fragment: Fragment, data: st.DataObject) -> None:
    good = bytearray(encode_fragment(fragment))
    good[data.draw(st.integers(0, len(good) - 1))] ^= data.draw(st.integers(1, 255))
    with pytest.raises(BadFragment):
        decode_fragment(good)


@settings(deadline=None)
@given(fragments(), st.data())
def test_one_that_is_cut_off_is_noticed(fragment: Fragment, data: st.DataObject) -> None:
    good = encode_fragment(fragment)
    with pytest.raises(BadFragment):
        decode_fragment(good[: data.draw(st.integers(0, len(good) - 1))])


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_rubbish_is_refused(data: bytes) -> None:
    for bad in (data, b"RFe\x01" + data, sealed(data)):
        with pytest.raises(BadFragment):
            decode_fragment(bad)


def sealed(body: bytes, version: int = 1) -> bytes:
    """With a checksum that is right."""
    head = b"RFe" + bytes([version])
    return head + zlib.crc32(body, zlib.crc32(head)).to_bytes(4, "big") + body


def changed(**fields: object) -> bytes:
    """The golden one with other fields, sealed again."""
    names = ["hash", "version", "etag", "size", "code", "k", "m", "segment_bytes", "index", "crcs"]
    values = msgspec.msgpack.decode(GOLDEN.read_bytes()[HEAD_BYTES:])
    return sealed(msgspec.msgpack.encode([fields.get(name, value) for name, value in zip(names, values, strict=True)]))


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"hash": b"short"}, "has no fragment"),
        ({"version": b"x"}, "no such fragment can be"),
        ({"size": -1}, "has no fragment"),
        ({"size": 1}, "1 stripes need as many checksums, not 3"),
        ({"crcs": b"12345"}, "not 1.25"),
        ({"code": "lrc"}, "no code 'lrc'"),
        ({"k": 0}, "0 data"),
        ({"m": 30}, "30 parity"),
        ({"segment_bytes": 0}, "segment"),
        ({"index": 6}, "no fragment 6"),
        ({"index": -1}, "no fragment -1"),
        ({"index": "5"}, "not of its format"),
    ],
)
def test_numbers_that_cannot_be(fields: dict[str, object], word: str) -> None:
    assert decode_fragment(changed()) == FRAGMENT
    with pytest.raises(BadFragment, match=word):
        decode_fragment(changed(**fields))


def test_a_newer_format_is_refused_with_a_hint() -> None:
    with pytest.raises(BadFragment, match="format 2; this version reads 1") as caught:
        decode_fragment(sealed(b"who knows", 2))
    assert caught.value.hint == "upgrade this node"


def test_what_cannot_be_is_not_encoded() -> None:
    for bad in (replace(FRAGMENT, index=6), replace(FRAGMENT, crcs=b"1234")):
        with pytest.raises(BadFragment):
            encode_fragment(bad)


# ---- pieces

SMALL = Origin(b"h" * 16, Timestamp(1), "e", 25, Coding(2, 1, 10))
PIECES = [b"abcde", b"fghij", b"klm"]
GOOD = Fragment(SMALL, 1, b"".join(zlib.crc32(piece).to_bytes(4, "big") for piece in PIECES))


def test_good_pieces() -> None:
    for stripe, piece in enumerate(PIECES):
        GOOD.check_piece(stripe, piece)


@pytest.mark.parametrize(
    ("stripe", "piece", "word"),
    [
        (0, b"abcdf", "another checksum"),
        (0, b"fghij", "another checksum"),
        (0, b"abcd", "4 bytes, not 5"),
        (2, b"klmno", "5 bytes, not 3"),
        (3, b"", "no stripe 3"),
        (-1, b"klm", "no stripe -1"),
    ],
)
def test_bad_pieces(stripe: int, piece: bytes, word: str) -> None:
    with pytest.raises(BadPiece, match=word):
        GOOD.check_piece(stripe, piece)


# ---- what may be decoded together


def test_fragments_of_one_version_agree() -> None:
    assert agree(replace(GOOD, index=index) for index in range(3)) == SMALL


@pytest.mark.parametrize(
    "other",
    [
        replace(SMALL, hash=b"H" * 16),
        replace(SMALL, timestamp=Timestamp(2)),
        replace(SMALL, etag="f"),
        replace(SMALL, size=24),
        replace(SMALL, coding=Coding(2, 2, 10)),
        replace(SMALL, coding=Coding(2, 1, 11)),
    ],
)
def test_fragments_that_may_not_be_mixed(other: Origin) -> None:
    with pytest.raises(MixedFragments, match="of 2"):
        agree([GOOD, replace(GOOD, origin=other, index=0), GOOD])


def test_no_fragments_are_of_nothing() -> None:
    with pytest.raises(MixedFragments, match="of 0"):
        agree([])

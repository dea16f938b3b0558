"""What every codec promises, on the built-in one and on PyECLib's: any k pieces give all back, and both write the same bytes."""

from __future__ import annotations

import random
from collections.abc import Iterable
from itertools import chain, combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ring.world.interface import Buffer
from storage.erasure.codecs import CODECS, make_codec
from storage.erasure.errors import BadPiece, TooFewFragments
from storage.erasure.interface import FRAGMENTS_MAX, Codec, Coding, piece_bytes

FOUR, EIGHT = Coding(4, 2), Coding(8, 4)

# What liberasurecode's isa_l_rs_cauchy makes of the bytes 0 to 18: the pieces 4 and 5 of 4+2, 8 to 11 of 8+4.
PARITY = {
    FOUR: ["baa40be601", "1ab17920e1"],
    EIGHT: ["281d90", "af0b44", "4a2b40", "7ef0a7"],
}


def body(length: int, seed: int = 0) -> bytes:
    return random.Random(f"{seed} {length}").randbytes(length)


def numbered(pieces: Iterable[Buffer]) -> dict[int, bytes]:
    return {index: bytes(piece) for index, piece in enumerate(pieces)}


def without(pieces: dict[int, bytes], lost: Iterable[int]) -> dict[int, bytes]:
    return {index: piece for index, piece in pieces.items() if index not in set(lost)}


def times(a: int, b: int) -> int:
    """In GF(2^8), by hand."""
    total = 0
    for bit in range(8):
        if b >> bit & 1:
            total ^= a << bit
    for bit in range(15, 7, -1):
        if total >> bit & 1:
            total ^= 0x11D << (bit - 8)
    return total


def expected_parity(block: bytes, coding: Coding) -> list[bytes]:
    """As docs/formats/fragment.md has it, byte by byte."""
    size = piece_bytes(len(block), coding.k)
    data = block.ljust(size * coding.k, b"\0")
    rows = [[next(x for x in range(256) if times(x, (coding.k + i) ^ j) == 1) for j in range(coding.k)] for i in range(coding.m)]
    parity = [bytearray(size) for _ in rows]
    for i, row in enumerate(rows):
        for j, factor in enumerate(row):
            for at in range(size):
                parity[i][at] ^= times(factor, data[j * size + at])
    return [bytes(one) for one in parity]


@pytest.fixture(params=CODECS)
def name(request: pytest.FixtureRequest) -> str:
    value: str = request.param
    return value


def check_all(codec: Codec, block: bytes, pieces: dict[int, bytes], lost: tuple[int, ...]) -> None:
    held = without(pieces, lost)
    assert bytes(codec.decode(held, len(block))) == block
    rebuilt = codec.reconstruct(held, lost)
    assert {index: bytes(piece) for index, piece in rebuilt.items()} == {index: pieces[index] for index in lost}


@pytest.mark.parametrize("coding", [FOUR, EIGHT], ids=str)
def test_every_pattern_of_losses(name: str, coding: Coding) -> None:
    codec = make_codec(coding, name)
    block = body(coding.k * 41 + 3)
    pieces = numbered(codec.encode(block))
    patterns = list(chain.from_iterable(combinations(range(coding.count), losses) for losses in range(coding.m + 1)))
    assert len(patterns) == {FOUR: 1 + 6 + 15, EIGHT: 1 + 12 + 66 + 220 + 495}[coding]
    for lost in patterns:
        check_all(codec, block, pieces, lost)


@pytest.mark.parametrize("coding", [FOUR, EIGHT], ids=str)
def test_one_loss_too_many(name: str, coding: Coding) -> None:
    codec = make_codec(coding, name)
    pieces = numbered(codec.encode(body(100)))
    for lost in combinations(range(coding.count), coding.m + 1):
        for call in (lambda held: codec.decode(held, 100), lambda held, lost=lost: codec.reconstruct(held, lost)):
            with pytest.raises(TooFewFragments) as caught:
                call(without(pieces, lost))
            assert (caught.value.needed, caught.value.lost) == (coding.k, lost)


@pytest.mark.parametrize("coding", [FOUR, EIGHT], ids=str)
def test_every_length(name: str, coding: Coding) -> None:
    """Up to a few bytes a piece, all remainders about the widths of vector registers, and about the built-in codec's blocks."""
    codec = make_codec(coding, name)
    lengths = [*range(5 * coding.k)]
    for size in (16, 32, 64, 128, 4096):
        lengths += range((size - 1) * coding.k, (size + 1) * coding.k + 1)
    lengths += [size * coding.k + rest for size in (32767, 32768, 32769, 65537) for rest in (0, 1, coding.k - 1)]
    lost = tuple(range(1, coding.m + 1))
    for length in lengths:
        block = body(length)
        pieces = numbered(codec.encode(block))
        assert {len(piece) for piece in pieces.values()} == {piece_bytes(length, coding.k)}
        assert b"".join(pieces[index] for index in range(coding.k)).rstrip(b"\0") == block.rstrip(b"\0")
        check_all(codec, block, pieces, lost)


@pytest.mark.parametrize("coding", [FOUR, EIGHT, Coding(1, 1), Coding(1, 5), Coding(5, 1), Coding(3, 9)], ids=str)
def test_the_bytes_are_those_of_the_formula(name: str, coding: Coding) -> None:
    for length in (1, coding.k, 3 * coding.k + 1, 300):
        block = body(length)
        assert [bytes(one) for one in make_codec(coding, name).encode(block)[coding.k :]] == expected_parity(block, coding)


@pytest.mark.parametrize("coding", [FOUR, EIGHT], ids=str)
def test_golden_parity(name: str, coding: Coding) -> None:
    pieces = make_codec(coding, name).encode(bytes(range(19)))
    assert [bytes(one).hex() for one in pieces[coding.k :]] == PARITY[coding]


CODINGS = st.integers(1, 19).flatmap(lambda k: st.builds(Coding, st.just(k), st.integers(1, 20 - k)))


@settings(deadline=None)
@given(CODINGS, st.binary(max_size=700), st.randoms(use_true_random=False))
def test_any_coding_in_either_codec(coding: Coding, block: bytes, rng: random.Random) -> None:
    """What one writes the other reads, whichever k pieces are left."""
    builtin, other = (make_codec(coding, one) for one in CODECS)
    pieces = numbered(builtin.encode(block))
    assert numbered(other.encode(block)) == pieces
    lost = tuple(sorted(rng.sample(range(coding.count), rng.randint(0, coding.m))))
    for codec in (builtin, other):
        check_all(codec, block, pieces, lost)


@settings(deadline=None, max_examples=20)
@given(st.integers(1, FRAGMENTS_MAX - 1), st.randoms(use_true_random=False))
def test_the_widest_codings(k: int, rng: random.Random) -> None:
    coding = Coding(k, FRAGMENTS_MAX - k)
    block = body(k * 5 + 1)
    for codec in (make_codec(coding, one) for one in CODECS):
        pieces = numbered(codec.encode(block))
        check_all(codec, block, pieces, tuple(sorted(rng.sample(range(coding.count), coding.m))))


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview], ids=lambda kind: kind.__name__)
def test_any_buffer_will_do(name: str, kind: type[Buffer]) -> None:
    codec = make_codec(FOUR, name)
    block = body(4001)
    pieces = codec.encode(kind(block))
    held = {index: kind(bytes(pieces[index])) for index in (1, 3, 4, 5)}
    assert bytes(codec.decode(held, 4001)) == block
    assert {index: bytes(piece) for index, piece in codec.reconstruct(held, [0, 2]).items()} == {
        0: bytes(pieces[0]),
        2: bytes(pieces[2]),
    }


def test_whole_data_pieces_are_not_copied(name: str) -> None:
    block = bytearray(body(4000))
    pieces = make_codec(FOUR, name).encode(block)
    block[0] ^= 0xFF
    block[3999] ^= 0xFF
    assert (pieces[0][0], pieces[3][999]) == (block[0], block[3999])


def test_asked_for_what_is_there(name: str) -> None:
    codec = make_codec(FOUR, name)
    pieces = numbered(codec.encode(body(50)))
    assert {index: bytes(piece) for index, piece in codec.reconstruct(pieces, range(6)).items()} == pieces
    assert codec.reconstruct(pieces, []) == {}


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({6: b"x" * 13}, "no piece 6"),
        ({-1: b"x" * 13}, "no piece -1"),
        ({2: b"x" * 12}, "12 bytes"),
        ({5: b"x" * 14}, "14 bytes"),
    ],
)
def test_pieces_that_cannot_be(name: str, change: dict[int, bytes], word: str) -> None:
    codec = make_codec(FOUR, name)
    pieces = {**numbered(codec.encode(body(50))), **change}
    with pytest.raises(BadPiece, match=word):
        codec.decode(pieces, 50)
    with pytest.raises(BadPiece, match=word):
        codec.reconstruct(pieces, [0])


def test_pieces_of_another_length(name: str) -> None:
    codec = make_codec(FOUR, name)
    with pytest.raises(BadPiece, match="13 bytes, not 14"):
        codec.decode(numbered(codec.encode(body(50))), 53)
    with pytest.raises(BadPiece, match="no piece 9"):
        codec.reconstruct(numbered(codec.encode(body(50))), [9])

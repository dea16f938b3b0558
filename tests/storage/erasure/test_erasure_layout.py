"""Layout, against the definition applied byte by byte; and the writer, which cuts objects so."""

from __future__ import annotations

import random
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ring.timestamp import Timestamp
from storage.erasure.codecs import make_codec
from storage.erasure.errors import BadCoding
from storage.erasure.interface import FRAGMENTS_MAX, SEGMENT_BYTES_MAX, Coding
from storage.erasure.layout import Layout, PieceRange, Span
from storage.erasure.writer import Stripe, StripeWriter


@st.composite
def codings(draw: st.DrawFn) -> Coding:
    k = draw(st.integers(1, 9))
    return Coding(k, draw(st.integers(1, 4)), draw(st.integers(k, 60)))


def place(byte: int, size: int, coding: Coding) -> tuple[int, int, int]:
    """Of an object's byte: stripe, fragment, and where in the fragment."""
    stripe, inside = divmod(byte, coding.segment_bytes)
    stripe_bytes = min(coding.segment_bytes, size - stripe * coding.segment_bytes)
    piece = -(-stripe_bytes // coding.k)
    return stripe, inside // piece, stripe * -(-coding.segment_bytes // coding.k) + inside % piece


@settings(deadline=None)
@given(codings(), st.integers(0, 400), st.data())
def test_a_range_is_the_bytes_where_the_definition_has_them(coding: Coding, size: int, data: st.DataObject) -> None:
    layout = Layout(coding, size)
    start = data.draw(st.integers(0, size))
    end = data.draw(st.integers(start, size))
    found = [
        (span.stripe, piece.index, layout.piece_start(span.stripe) + at)
        for span in layout.spans(start, end)
        for piece in span.pieces
        for at in range(piece.start, piece.end)
    ]
    assert found == [place(byte, size, coding) for byte in range(start, end)]
    for span in layout.spans(start, end):
        assert span.length > 0
        assert all(0 <= piece.start < piece.end <= layout.piece_bytes(span.stripe) for piece in span.pieces)


@settings(deadline=None)
@given(codings(), st.integers(0, 400))
def test_lengths_in_closed_form(coding: Coding, size: int) -> None:
    layout = Layout(coding, size)
    stripes = range(layout.stripe_count)
    assert sum(layout.stripe_bytes(stripe) for stripe in stripes) == size
    assert sum(layout.piece_bytes(stripe) for stripe in stripes) == layout.fragment_bytes
    at = 0
    for stripe in stripes:
        assert layout.piece_start(stripe) == at
        at += layout.piece_bytes(stripe)
        assert 0 <= coding.k * layout.piece_bytes(stripe) - layout.stripe_bytes(stripe) < coding.k


def test_an_object_of_four_and_two() -> None:
    """2.5 MiB + 3 bytes: two whole stripes, and a short one with a byte of zeros."""
    layout = Layout(Coding(4, 2), (5 << 19) + 3)
    assert (layout.stripe_count, layout.full_piece_bytes, layout.piece_bytes(2)) == (3, 1 << 18, (1 << 17) + 1)
    assert layout.fragment_bytes == (1 << 19) + (1 << 17) + 1
    assert list(layout.spans((1 << 20) - 2, (1 << 20) + 1)) == [
        Span(0, (PieceRange(3, (1 << 18) - 2, 1 << 18),)),
        Span(1, (PieceRange(0, 0, 1),)),
    ]
    assert layout.span(2, 2 << 20, layout.object_bytes).pieces[-1] == PieceRange(3, 0, 1 << 17)


def test_an_empty_object() -> None:
    layout = Layout(Coding(8, 4), 0)
    assert (layout.stripe_count, layout.fragment_bytes, list(layout.spans(0, 0))) == (0, 0, [])


def test_a_byte_of_many_fragments() -> None:
    """All but the first piece are zeros."""
    layout = Layout(Coding(8, 4), 1)
    assert (layout.fragment_bytes, list(layout.spans(0, 1))) == (1, [Span(0, (PieceRange(0, 0, 1),))])


@pytest.mark.parametrize(
    ("k", "m", "segment", "code", "word"),
    [
        (0, 2, 100, "rs-cauchy", "0 data and 2 parity"),
        (4, 0, 100, "rs-cauchy", "4 data and 0 parity"),
        (FRAGMENTS_MAX, 1, 100, "rs-cauchy", "cannot be"),
        (4, 2, 3, "rs-cauchy", "3 bytes"),
        (4, 2, SEGMENT_BYTES_MAX + 1, "rs-cauchy", "cannot have"),
        (4, 2, 100, "lrc", "no code 'lrc'"),
    ],
)
def test_codings_that_cannot_be(k: int, m: int, segment: int, code: str, word: str) -> None:
    with pytest.raises(BadCoding, match=word) as caught:
        Coding(k, m, segment, code)
    assert caught.value.hint


# ---- the writer


def written(coding: Coding, chunks: list[bytes]) -> tuple[StripeWriter, list[Stripe]]:
    writer = StripeWriter(make_codec(coding), coding)
    stripes: list[Stripe] = []
    for chunk in chunks:
        buffer = bytearray(chunk)
        for stripe in writer.feed(buffer):
            stripes.append(Stripe(stripe.number, [bytes(piece) for piece in stripe.pieces]))
        buffer[:] = bytes(len(buffer))  # its owner uses it again
    return writer, stripes + list(writer.finish())


@settings(deadline=None)
@given(codings(), st.binary(max_size=300), st.data())
def test_an_object_in_any_chunks_becomes_the_same_fragments(coding: Coding, body: bytes, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(body)), max_size=6)))
    chunks = [body[start:end] for start, end in zip([0, *cuts], [*cuts, len(body)], strict=True)]
    writer, stripes = written(coding, chunks)
    layout = Layout(coding, len(body))
    assert writer.size == len(body)
    assert [stripe.number for stripe in stripes] == list(range(layout.stripe_count))
    codec = make_codec(coding, "builtin")
    for stripe in stripes:
        begin = stripe.number * coding.segment_bytes
        assert stripe.pieces == codec.encode(body[begin : begin + coding.segment_bytes])
    fragments = writer.fragments(b"h" * 16, Timestamp(7), "etag")
    assert [fragment.index for fragment in fragments] == list(range(coding.count))
    for fragment in fragments:
        assert (fragment.origin.size, fragment.origin.coding, fragment.origin.etag) == (len(body), coding, "etag")
        assert fragment.crcs == b"".join(zlib.crc32(stripe.pieces[fragment.index]).to_bytes(4, "big") for stripe in stripes)
        assert sum(len(stripe.pieces[fragment.index]) for stripe in stripes) == layout.fragment_bytes


def test_a_chunk_of_many_stripes_is_cut_without_a_copy() -> None:
    coding = Coding(2, 1, 100)
    body = bytearray(random.Random(1).randbytes(250))
    stripes = list(StripeWriter(make_codec(coding), coding).feed(body))
    body[0] ^= 1
    body[150] ^= 1
    assert [stripe.pieces[at][0] for at, stripe in enumerate(stripes)] == [body[0], body[150]]

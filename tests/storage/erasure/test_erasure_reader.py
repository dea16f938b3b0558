"""The reader: conversations, and plays of everything that can go wrong: right bytes in order, or an error; never wrong ones."""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ring.timestamp import Timestamp
from storage.erasure.codecs import CODECS, make_codec
from storage.erasure.errors import BadPiece, MixedFragments, TooFewFragments
from storage.erasure.fragment import Fragment
from storage.erasure.interface import Coding
from storage.erasure.reader import Ask, Damage, Reader
from storage.erasure.writer import StripeWriter


@dataclass
class Stored:
    """An object's fragments, as devices have them."""

    coding: Coding
    body: bytes
    codec: str = "builtin"
    stamp: int = 1
    fragments: list[Fragment] = field(init=False)
    files: list[bytes] = field(init=False)

    def __post_init__(self) -> None:
        writer = StripeWriter(make_codec(self.coding, self.codec), self.coding)
        stripes = [*writer.feed(self.body), *writer.finish()]
        self.files = [b"".join(bytes(stripe.pieces[index]) for stripe in stripes) for index in range(self.coding.count)]
        self.fragments = writer.fragments(b"h" * 16, Timestamp(self.stamp), "etag")

    def reader(self, start: int = 0, end: int | None = None, *, window: int = 2, sources: list[int] | None = None) -> Reader:
        """Source i has fragment i, unless given others.  It is read by the codec that did not write it."""
        codec = make_codec(self.coding, next(name for name in CODECS if name != self.codec))
        reader = Reader(codec, self.fragments[0].origin, start, len(self.body) if end is None else end, window=window)
        for source, index in enumerate(range(self.coding.count) if sources is None else sources):
            reader.add(source, self.fragments[index])
        return reader

    def piece(self, ask: Ask) -> bytes:
        return self.files[ask.index][ask.offset : ask.offset + ask.length]


def said(asks: list[Ask]) -> list[tuple[int, int]]:
    return [(ask.source, ask.stripe) for ask in asks]


def taken(reader: Reader) -> bytes | None:
    ready = reader.take()
    return None if ready is None else b"".join(ready.decode())


BODY = random.Random(3).randbytes(250)
FOUR = Stored(Coding(4, 2, 100), BODY)  # stripes of 100, 100 and 50 bytes; pieces of 25, 25 and 13


def answer(stored: Stored, reader: Reader, asks: list[Ask]) -> None:
    for ask in asks:
        assert reader.arrived(ask.source, ask.stripe, stored.piece(ask))


# ---- conversations


def test_all_goes_well() -> None:
    reader = FOUR.reader()
    asks = reader.asks()
    assert said(asks) == [(0, 0), (1, 0), (2, 0), (3, 0), (0, 1), (1, 1), (2, 1), (3, 1)]
    assert reader.asks() == [] and taken(reader) is None
    answer(FOUR, reader, asks[::-1])
    assert reader.held_bytes == 200
    assert taken(reader) == BODY[:100]
    asks = reader.asks()
    assert asks == [Ask(source, source, 2, 50, 13) for source in range(4)]
    answer(FOUR, reader, asks)
    assert (taken(reader), reader.done) == (BODY[100:200], False)
    assert (taken(reader), reader.done, taken(reader), reader.asks(), reader.held_bytes) == (BODY[200:], True, None, [], 0)


def test_a_small_range_costs_one_piece() -> None:
    reader = FOUR.reader(130, 140)
    asks = reader.asks()
    assert asks == [Ask(1, 1, 1, 25, 25)]
    answer(FOUR, reader, asks)
    assert (taken(reader), reader.done) == (BODY[130:140], True)


def test_an_empty_range() -> None:
    reader = FOUR.reader(70, 70)
    assert (reader.asks(), reader.done, taken(reader)) == ([], True, None)


def test_a_node_fails_on_the_way() -> None:
    reader = FOUR.reader(0, 100)
    asks = reader.asks()
    answer(FOUR, reader, asks[:2])
    reader.failed(2)
    more = reader.asks()
    assert said(more) == [(4, 0)]
    answer(FOUR, reader, [*asks[3:], *more])
    assert taken(reader) == BODY[:100]


def test_a_small_range_without_its_fragment_takes_k_others() -> None:
    reader = FOUR.reader(130, 140)
    reader.asks()
    reader.failed(1)
    asks = reader.asks()
    assert said(asks) == [(0, 1), (2, 1), (3, 1), (4, 1)]
    answer(FOUR, reader, asks)
    assert taken(reader) == BODY[130:140]


def test_a_bad_piece_is_remembered_and_its_source_used_for_the_next() -> None:
    reader = FOUR.reader(0, 150)
    asks = reader.asks()
    assert not reader.arrived(0, 0, b"x" * 25)
    assert reader.damaged == [Damage(0, 0, 0)]
    assert said(reader.asks()) == [(4, 0)]
    answer(FOUR, reader, [ask for ask in asks if ask.source == 0 and ask.stripe == 1])
    assert reader.damaged == [Damage(0, 0, 0)]


def test_a_source_that_says_so_itself_is_as_bad() -> None:
    reader = FOUR.reader(0, 100)
    reader.asks()
    reader.bad(3, 0)
    assert (reader.damaged, said(reader.asks())) == ([Damage(3, 3, 0)], [(4, 0)])


def test_a_slow_piece_is_hedged_once_and_still_welcome() -> None:
    reader = FOUR.reader(0, 100)
    asks = reader.asks()
    answer(FOUR, reader, asks[:3])
    reader.slow(3, 0)
    hedges = reader.asks()
    assert (said(hedges), reader.asks()) == ([(4, 0)], [])
    answer(FOUR, reader, asks[3:])  # it came after all
    assert taken(reader) == BODY[:100]
    answer(FOUR, reader, hedges)  # nobody waits for it any more


def test_a_hedge_that_is_slow_too_is_hedged() -> None:
    reader = FOUR.reader(0, 100)
    asks = reader.asks()
    answer(FOUR, reader, asks[:3])
    reader.slow(3, 0)
    assert said(reader.asks()) == [(4, 0)]
    reader.slow(4, 0)
    hedges = reader.asks()
    assert said(hedges) == [(5, 0)]
    answer(FOUR, reader, hedges)
    assert taken(reader) == BODY[:100]


def test_a_slow_source_is_asked_last_until_it_answers() -> None:
    stored = Stored(Coding(2, 2, 10), BODY[:50])
    reader = stored.reader(window=1)
    first = reader.asks()
    reader.slow(0, 0)
    more = reader.asks()
    answer(stored, reader, [first[1], *more])
    assert (said(more), taken(reader)) == ([(2, 0)], BODY[:10])
    asks = reader.asks()
    assert said(asks) == [(1, 1), (2, 1)]
    reader.slow(2, 1)
    more = reader.asks()
    assert said(more) == [(3, 1)]
    answer(stored, reader, [asks[0], *more])
    assert taken(reader) == BODY[10:20]
    reader.failed(3)
    asks = reader.asks()
    assert said(asks) == [(1, 2), (0, 2)]  # of the slow ones, data first
    answer(stored, reader, asks)
    assert taken(reader) == BODY[20:30]
    assert said(reader.asks()) == [(0, 3), (1, 3)]


def test_two_sources_of_one_index() -> None:
    """A handoff and a primary: the second stands in for the first, and they count once."""
    reader = FOUR.reader(0, 100, sources=[0, 0, 1, 2, 3])
    assert said(reader.asks()) == [(0, 0), (2, 0), (3, 0), (4, 0)]
    reader.failed(0)
    assert said(reader.asks()) == [(1, 0)]
    reader.failed(1)
    assert reader.asks() == []
    with pytest.raises(TooFewFragments) as caught:
        reader.take()
    assert (caught.value.needed, caught.value.lost, caught.value.stripe) == (4, (0, 4, 5), 0)


def test_what_comes_before_the_loss_is_still_given_and_a_new_source_saves_the_rest() -> None:
    reader = FOUR.reader(sources=[0, 1, 2, 3])
    asks = reader.asks()
    for ask in asks:
        if (ask.source, ask.stripe) == (2, 1):
            assert not reader.arrived(2, 1, bytes(25))
        else:
            answer(FOUR, reader, [ask])
    assert taken(reader) == BODY[:100]
    with pytest.raises(TooFewFragments) as caught:
        reader.take()
    assert (caught.value.lost, caught.value.stripe) == ((2, 4, 5), 1)
    reader.add(9, FOUR.fragments[5])
    asks = [ask for ask in reader.asks() if ask.stripe == 1]
    assert said(asks) == [(9, 1)]
    answer(FOUR, reader, asks)
    assert taken(reader) == BODY[100:200]


def test_a_range_needs_no_k_fragments_when_its_own_are_there() -> None:
    reader = FOUR.reader(0, 20, sources=[0])
    answer(FOUR, reader, reader.asks())
    assert taken(reader) == BODY[:20]


def test_with_fewer_than_k_in_time_the_late_ones_are_waited_for() -> None:
    reader = FOUR.reader(0, 20, sources=[0, 1, 2])
    asks = reader.asks()
    reader.slow(0, 0)
    assert (reader.asks(), taken(reader)) == ([], None)
    answer(FOUR, reader, asks)
    assert taken(reader) == BODY[:20]


def test_other_versions_are_not_let_in() -> None:
    reader = FOUR.reader()
    for other in (Stored(FOUR.coding, BODY, stamp=2), Stored(FOUR.coding, BODY[1:]), Stored(Coding(4, 3, 100), BODY)):
        with pytest.raises(MixedFragments):
            reader.add(8, other.fragments[0])


# ---- everything that can go wrong


@dataclass
class Play:
    """A reader and its sources, by chance: pieces come in any order, good, harmed, late or not at all."""

    stored: Stored
    rng: random.Random
    trouble: float
    window: int

    def harmed(self, ask: Ask) -> bytes:
        piece = bytearray(self.stored.piece(ask))
        match self.rng.randrange(6):
            case 0:
                piece[self.rng.randrange(len(piece))] ^= 1 << self.rng.randrange(8)
            case 1:
                piece = piece[: self.rng.randrange(len(piece))]
            case 2:
                piece += b"\0"
            case 3:
                piece = bytearray(len(piece))
            case 4:  # another fragment's, at the same place
                piece[:] = self.rng.choice(self.stored.files)[ask.offset : ask.offset + ask.length]
            case _:  # another place of the same fragment
                file = self.stored.files[ask.index]
                at = self.rng.randrange(len(file) - len(piece) + 1)
                piece[:] = file[at : at + len(piece)]
        return bytes(piece)

    def run(self, start: int, end: int) -> None:
        coding, rng = self.stored.coding, self.rng
        sources = [index for index in range(coding.count) if rng.random() > self.trouble / 3]
        sources += [rng.randrange(coding.count) for _ in range(rng.randrange(3))]
        reader = self.stored.reader(start, end, window=self.window, sources=sources)
        alive, waiting, late = set(range(len(sources))), list[Ask](), set[Ask]()
        asked = set[tuple[int, int]]()
        spoiled = set[tuple[int, int]]()  # (source, stripe)
        result = b""
        layout = self.stored.fragments[0].origin.layout
        while not reader.done:
            for ask in reader.asks():
                assert ask.source in alive and (ask.source, ask.stripe) not in asked
                assert ask.index == sources[ask.source]
                assert (ask.offset, ask.length) == (layout.piece_start(ask.stripe), layout.piece_bytes(ask.stripe))
                asked.add((ask.source, ask.stripe))
                waiting.append(ask)
            assert reader.held_bytes <= self.window * coding.count * layout.full_piece_bytes
            under_way = bool(waiting)
            if waiting:
                ask = waiting[rng.randrange(len(waiting))]
                event = rng.random()
                if event < self.trouble / 4 and ask not in late:
                    late.add(ask)
                    reader.slow(ask.source, ask.stripe)
                    continue
                waiting.remove(ask)
                if event < self.trouble / 2:
                    alive.discard(ask.source)
                    reader.failed(ask.source)
                    waiting = [one for one in waiting if one.source != ask.source]
                elif event < self.trouble * 0.75:
                    if not reader.arrived(ask.source, ask.stripe, self.harmed(ask)):
                        spoiled.add((ask.source, ask.stripe))
                elif event < self.trouble:
                    spoiled.add((ask.source, ask.stripe))
                    reader.bad(ask.source, ask.stripe)
                else:
                    reader.arrived(ask.source, ask.stripe, self.stored.piece(ask))
            try:
                ready = reader.take()
            except TooFewFragments as error:
                assert error.stripe is not None
                good = {sources[one] for one in alive if (one, error.stripe) not in spoiled}
                wanted = {piece.index for piece in layout.span(error.stripe, start, end).pieces}
                assert len(good) < coding.k and not wanted <= good, "it gave up though there was enough"
                assert result == self.stored.body[start : start + len(result)]
                return
            if ready is not None:
                result += b"".join(ready.decode())
            else:
                assert under_way, "nothing is under way, nothing is ready, and nothing was said"
        assert result == self.stored.body[start:end]


@settings(deadline=None, max_examples=300)
@given(
    st.integers(1, 5),
    st.integers(1, 3),
    st.integers(1, 120),
    st.integers(1, 3),
    st.sampled_from([0.0, 0.1, 0.4, 0.8]),
    st.sampled_from(CODECS),
    st.randoms(use_true_random=False),
)
def test_right_bytes_or_an_error(k: int, m: int, size: int, window: int, trouble: float, codec: str, rng: random.Random) -> None:
    stored = Stored(Coding(k, m, rng.randint(k, 40)), rng.randbytes(size), codec)
    start = rng.randint(0, size)
    Play(stored, rng, trouble, window).run(start, rng.randint(start, size))


def test_a_checksum_that_is_not_looked_at_is_noticed_here() -> None:
    """The play does bite: fragments whose checksums say nothing let wrong bytes through."""

    class Trusting(Fragment):
        def check_piece(self, stripe: int, piece: object) -> None:
            """Anything goes."""

    stored = Stored(Coding(3, 2, 30), BODY)
    stored.fragments = [Trusting(one.origin, one.index, one.crcs) for one in stored.fragments]
    caught = 0
    for seed in range(50):
        try:
            Play(stored, random.Random(seed), 0.4, 2).run(0, 250)
        except (AssertionError, BadPiece):
            caught += 1
    assert caught


def test_no_wrong_byte_from_any_one_harmed_byte() -> None:
    """Of every byte of every fragment, one at a time; the harmed one is asked first, an unharmed one stands by."""
    stored = Stored(Coding(3, 2, 12), BODY[:20])
    for index in range(5):
        for at in range(len(stored.files[index])):
            harmed = bytearray(stored.files[index])
            harmed[at] ^= 0x40
            reader = stored.reader(window=9, sources=[index, *range(5)])
            if index >= 3:
                reader.failed(1)  # its data: so this parity is read
            result = b""
            while not reader.done:
                for ask in reader.asks():
                    file = harmed if ask.source == 0 else stored.files[ask.index]
                    reader.arrived(ask.source, ask.stripe, file[ask.offset : ask.offset + ask.length])
                result += taken(reader) or b""
            assert result == stored.body
            asked = index < 4
            assert reader.damaged == ([Damage(0, index, at // 4)] if asked else [])


def test_a_fragment_is_what_it_says() -> None:
    """A device that gives fragment 1's pieces for fragment 2's is found out."""
    reader = FOUR.reader(0, 100, sources=[0, 1, 3, 4])
    reader.add(7, replace(FOUR.fragments[2]))
    asks = {ask.source: ask for ask in reader.asks()}
    assert not reader.arrived(7, 0, FOUR.files[1][:25])
    assert reader.damaged == [Damage(7, 2, 0)] and set(asks) == {0, 1, 2, 7}

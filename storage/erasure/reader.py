"""Reader: which pieces to ask for next, and an object's bytes in order, from any k fragments.  Sans-I/O.

The caller adds the *sources* that it found (a number of its own, and the fragment that is there; an index may have several), sends
what ``asks`` says, and tells what comes of it: ``arrived``, ``bad`` (that source cannot give that piece), ``failed`` (it gives
nothing any more), ``slow`` (it takes longer than it should; the caller has the clock).  ``take`` gives the range's bytes in order.

- As long as all goes well only data pieces are read, and only those that the range meets: a small range costs one piece.
- When one of these cannot be had in time, the stripe is completed to k pieces, data before parity, from sources that are not slow
  before those that are; a slow answer is still good when it comes before the others', and makes its source one that is not slow.
- Every piece is verified before it is used; a bad one is remembered in ``damaged`` and asked of someone else.
- ``window`` stripes are under way or wait to be taken, no more: at most that times k + m pieces are held.
- A stripe that cannot be had ends the reading there, with TooFewFragments; what comes before it is still given.  A new source may
  yet save it.

Neighbours: layout.py, fragment.py, a codec.  The version to read is quorum.py's verdict.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ring.world.interface import Buffer
from storage.erasure.errors import BadPiece, MixedFragments, TooFewFragments
from storage.erasure.fragment import Fragment, Origin
from storage.erasure.interface import Codec
from storage.erasure.layout import Span

WINDOW = 2


@dataclass(frozen=True, slots=True)
class Ask:
    """For a piece: these bytes of the fragment of that source."""

    source: int
    index: int
    stripe: int
    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class Damage:
    source: int
    index: int
    stripe: int


@dataclass(frozen=True, slots=True)
class Ready:
    """A stripe that can be decoded.  ``decode`` may run on a thread."""

    span: Span
    pieces: Mapping[int, Buffer]  # what is needed and no more
    codec: Codec

    def decode(self) -> list[Buffer]:
        """The range's bytes of this stripe: views of pieces."""
        missing = [wanted.index for wanted in self.span.pieces if wanted.index not in self.pieces]
        pieces = {**self.pieces, **self.codec.reconstruct(self.pieces, missing)} if missing else self.pieces
        return [memoryview(pieces[wanted.index])[wanted.start : wanted.end] for wanted in self.span.pieces]


@dataclass(slots=True)
class _Source:
    fragment: Fragment
    slow: bool = False


@dataclass(slots=True)
class _Stripe:
    span: Span
    needed: int  # k
    wanted: frozenset[int]
    held: dict[int, Buffer] = field(default_factory=dict)
    pending: dict[int, int] = field(default_factory=dict)  # source -> index
    late: set[int] = field(default_factory=set)  # sources, of those pending
    refused: set[int] = field(default_factory=set)  # sources that cannot give this piece

    @property
    def complete(self) -> bool:
        return self.wanted <= self.held.keys() or len(self.held) >= self.needed

    @property
    def coming(self) -> set[int]:
        """Indexes that are here, or on their way in time."""
        return self.held.keys() | {index for source, index in self.pending.items() if source not in self.late}

    def prune(self) -> None:
        """Of a complete one: keep no more than it takes."""
        keep = self.wanted if self.wanted <= self.held.keys() else set(sorted(self.held)[: self.needed])
        self.held = {index: piece for index, piece in self.held.items() if index in keep}
        self.pending.clear()
        self.late.clear()


class Reader:
    """Of the object's bytes [start, end)."""

    def __init__(self, codec: Codec, origin: Origin, start: int, end: int, *, window: int = WINDOW) -> None:
        assert (codec.k, codec.m) == (origin.coding.k, origin.coding.m) and window > 0
        self._codec = codec
        self._origin = origin
        self._layout = origin.layout
        self._range = (start, end)
        stripes = self._layout.stripes(start, end)
        self._next, self._end = stripes.start, stripes.stop
        self._window = window
        self._sources: dict[int, _Source] = {}
        self._stripes: dict[int, _Stripe] = {}
        self.damaged: list[Damage] = []

    # events

    def add(self, source: int, fragment: Fragment) -> None:
        """A fragment of the object is there.  MixedFragments when it is of something else."""
        if fragment.origin != self._origin:
            raise MixedFragments(f"source {source} has a fragment of another version or coding")
        assert source not in self._sources, "a source is added once"
        self._sources[source] = _Source(fragment)

    def arrived(self, source: int, stripe: int, piece: Buffer) -> bool:
        """Take a piece; False when it is not what was written.  One that nobody waits for any more is let go."""
        found = self._pending(source, stripe)
        if found is None:
            return True
        state, fragment = found
        try:
            fragment.check_piece(stripe, piece)
        except BadPiece:
            self.bad(source, stripe)
            return False
        del state.pending[source]
        state.late.discard(source)
        self._sources[source].slow = False
        state.held.setdefault(fragment.index, piece)
        if state.complete:
            state.prune()
        return True

    def bad(self, source: int, stripe: int) -> None:
        """The source has no such piece, or a damaged one; its other pieces may be good."""
        found = self._pending(source, stripe)
        if found is not None:
            state, fragment = found
            del state.pending[source]
            state.late.discard(source)
            state.refused.add(source)
            self.damaged.append(Damage(source, fragment.index, stripe))

    def failed(self, source: int) -> None:
        """The source gives nothing any more."""
        self._sources.pop(source, None)
        for state in self._stripes.values():
            state.pending.pop(source, None)
            state.late.discard(source)

    def slow(self, source: int, stripe: int) -> None:
        """A piece takes too long: ask others, and this source last from now on."""
        found = self._pending(source, stripe)
        if found is not None:
            found[0].late.add(source)
            self._sources[source].slow = True

    # actions

    def asks(self) -> list[Ask]:
        """What to ask for now.  Each is said once, and counts as asked."""
        asks: list[Ask] = []
        for number in range(self._next, min(self._end, self._next + self._window)):
            state = self._stripes.get(number)
            if state is None:
                span = self._layout.span(number, *self._range)
                state = _Stripe(span, self._codec.k, frozenset(piece.index for piece in span.pieces))
                self._stripes[number] = state
            for source in [] if state.complete else self._choose(state):
                index = self._sources[source].fragment.index
                state.pending[source] = index
                asks.append(Ask(source, index, number, self._layout.piece_start(number), self._layout.piece_bytes(number)))
        return asks

    def take(self) -> Ready | None:
        """The next stripe of the range; None while it is not there.  TooFewFragments when it cannot be had."""
        state = self._stripes.get(self._next)
        if state is None or not state.complete:
            if not self.done:
                self._check_possible(state)
            return None
        del self._stripes[self._next]
        self._next += 1
        return Ready(state.span, state.held, self._codec)

    @property
    def done(self) -> bool:
        """All of the range was taken."""
        return self._next >= self._end

    @property
    def held_bytes(self) -> int:
        return sum(len(piece) for state in self._stripes.values() for piece in state.held.values())

    # choosing

    def _choose(self, state: _Stripe) -> list[int]:
        """Sources to ask for a piece of this stripe."""
        free = self._free(state)
        coming = state.coming
        absent = sorted(state.wanted - coming)
        if all(index in free and not self._sources[free[index]].slow for index in absent):
            return [free[index] for index in absent]
        others = sorted(free.keys() - coming, key=lambda index: (self._sources[free[index]].slow, index))
        count = max(self._codec.k - len(coming), 0)
        if len(others) >= count:
            return [free[index] for index in others[:count]]
        late = set(state.pending.values()) - coming
        if state.wanted <= coming | late | free.keys():
            return [free[index] for index in absent if index in free]  # k without the late ones there are not, but these will do
        if len(coming | late | free.keys()) >= self._codec.k:
            return [free[index] for index in others]  # with the late ones it will do
        return []

    def _free(self, state: _Stripe) -> dict[int, int]:
        """Index -> the best source that was not asked for its piece yet."""
        free: dict[int, int] = {}
        for number, source in self._sources.items():
            index = source.fragment.index
            if number in state.pending or number in state.refused:
                continue
            if index not in free or (self._sources[free[index]].slow and not source.slow):
                free[index] = number
        return free

    def _check_possible(self, state: _Stripe | None) -> None:
        if state is None:
            return  # nobody asked for it yet
        possible = {*state.held, *state.pending.values(), *self._free(state)}
        if not state.wanted <= possible and len(possible) < self._codec.k:
            raise TooFewFragments(self._codec.k, set(range(self._origin.coding.count)) - possible, stripe=self._next)

    def _pending(self, source: int, stripe: int) -> tuple[_Stripe, Fragment] | None:
        state = self._stripes.get(stripe)
        if state is None or source not in state.pending:
            return None
        return state, self._sources[source].fragment

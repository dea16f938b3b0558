"""Order: which partition a replicator looks at next, and what of it is repaired first: what has the fewest good copies.

Pure.  Two questions:

    rank    which version?  How many primaries hold it is known from the comparison that finds what differs: a *level*.
    Order   which partition?  A pass lists what the device holds, then looks at each partition once, and a look sends what has one
            copy only: nobody knows before the last look where such versions are.  Then partitions come again, level by level.  The
            first looks go by what is likely: what the last pass found there; where the ring says that the other holders are devices
            that do not answer, or that were found empty; for a new ring, only devices that had it before count.  A device found
            empty makes every partition that it shares with this one urgent at once, looked at or not.

Nothing depends on the order but time: everything is looked at in every pass.  Neighbours: storage.object.replicator,
storage.container.replicator.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from typing import Generic, TypeVar

from ring.names import Span

T = TypeVar("T")


class Order:
    def __init__(self) -> None:
        self.start: bytes | None = b""  # what is held from here on is still to be listed; None: all is
        self.looks = 0  # of this pass
        self._holders: dict[Span, tuple[int, ...]] = {}  # of what is held: which other devices should have it
        self._heap: list[tuple[int, int, int, Span]] = []  # level, likely copies, turn
        self._waiting: set[Span] = set()  # those in the heap
        self._seen: set[Span] = set()  # looked at in this pass
        self._turn = 0  # of equals, who came first
        self._short: dict[Span, int] = {}  # copies at the last look, where it found fewer than there should be
        self._away: set[int] = set()
        self._empty: set[int] = set()

    # ---- a pass

    def begin(self) -> None:
        """A pass: to be listed anew."""
        self.start = b""
        self.looks = 0
        self._holders.clear()
        self._heap.clear()
        self._waiting.clear()
        self._seen.clear()
        self._empty.clear()  # those that still are, are found again; what was missing is known by partition

    def add(self, span: Span, holders: Iterable[int]) -> None:
        """One that is held; ``holders``: the other devices that should have all of it too."""
        self._holders[span] = tuple(holders)
        self._push(span)

    def listed(self) -> None:
        self.start = None
        for span in self._short.keys() - self._holders.keys():
            del self._short[span]

    def next(self) -> Span | None:
        """None: the pass is over (or is to be listed)."""
        if self.start is not None or not self._heap:
            return None
        span = heappop(self._heap)[-1]
        self._waiting.discard(span)
        self._seen.add(span)
        self.looks += 1
        return span

    def take(self, again: Callable[[], Span | None], at_most: int) -> list[Span]:
        """Some of one level, to be looked at together; ``again`` gives what comes before them."""
        level, spans = self.urgency, dict[Span, None]()
        while len(spans) < at_most:
            span = again() or (self.next() if self.urgency == level else None)
            if span is None:
                break
            spans[span] = None
        return list(spans)

    def back(self, span: Span, copies: int) -> None:
        """There is more to do of it: of what has so many copies, and no fewer."""
        self._short[span] = copies
        if span in self._holders and span not in self._waiting:
            self._push(span)

    def found(self, span: Span, copies: int | None) -> None:
        """A look ended with so many copies of what is worst off; None: as many as there should be."""
        if copies is None:
            self._short.pop(span, None)
        else:
            self._short[span] = copies

    @property
    def urgency(self) -> int | None:
        """The level of what comes next, 1 while something was not looked at; None: nothing comes."""
        return self._heap[0][0] if self._heap else None

    @property
    def fraction(self) -> float:
        """Of the pass: 0 to 1."""
        if self.start is not None:
            return 0.0
        return 1.0 - len(self._waiting) / max(1, len(self._holders))

    def short(self, copies: int | None = None) -> int:
        """How many partitions had fewer copies than they should at their last look; or no more than ``copies``."""
        return len(self._short) if copies is None else sum(found <= copies for found in self._short.values())

    @property
    def urgent(self) -> bool:
        """Something is known to have one copy only."""
        return 1 in self._short.values()

    # ---- devices

    def answers(self, device: int) -> None:
        if device in self._away:
            self._away.discard(device)
            self._rank()

    def away(self, device: int) -> None:
        """It does not answer: what it holds does not count for now."""
        if device not in self._away:
            self._away.add(device)
            self._rank()

    def empty(self, device: int, span: Span) -> None:
        """It has nothing of this partition, which is held here and is being looked at: it may have nothing at all.  Believed of a
        device once a pass."""
        if device in self._empty:
            return
        self._empty.add(device)
        shared = {other for other, holders in self._holders.items() if device in holders and other != span}
        self._waiting |= shared
        self._seen -= shared
        self._rank()

    # ---- ranks

    def copies(self, span: Span) -> int:
        """Likely, of what is worst off in it."""
        doubted = self._away | self._empty
        expected = 1 + sum(device not in doubted for device in self._holders.get(span, ()))
        return min(expected, self._short.get(span, expected))

    def _push(self, span: Span) -> None:
        self._turn += 1
        self._waiting.add(span)
        heappush(self._heap, self._place(span, self._turn))

    def _place(self, span: Span, turn: int) -> tuple[int, int, int, Span]:
        copies = self.copies(span)
        return self._short.get(span, copies) if span in self._seen else 1, copies, turn, span

    def _rank(self) -> None:
        turns = {span: turn for *_, turn, span in self._heap}
        self._heap = [self._place(span, turns.get(span, 0)) for span in self._waiting]
        heapify(self._heap)


@dataclass(frozen=True, slots=True)
class Push(Generic[T]):
    """One version that ``target`` lacks."""

    copies: int  # how many there are of it when its turn comes
    key: bytes
    held: tuple[bytes, bytes] | None  # what the target has of that name: key, digest
    target: T
    minority: bool = False  # fewer than a majority hold it: nobody may have been told that it was written


def rank(pushes: Sequence[Push[T]]) -> list[Push[T]]:
    """Those with the fewest copies first; of equals, as they were."""
    return sorted(pushes, key=lambda push: push.copies)


def is_mine(key: bytes, own: int, holders: Collection[int], *, is_primary: bool) -> bool:
    """Whether this device is the one of the holders (device ids of primaries, ``own`` not among them) that is to bring a version to
    who lacks it.  All holders find the same one, so that two do not send the same; who has sent all of its own helps the others."""
    all_holders = sorted({*holders, own} if is_primary or not holders else holders)
    return all_holders[key[15] % len(all_holders)] == own

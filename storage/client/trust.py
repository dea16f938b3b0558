"""Trust: whether that a device lacks something may count.  Pure.

A device whose disk was replaced, or that lost some of what it had acknowledged, answers like one that never knew of it: two such
answers would be a majority for "not there", and two such devices a majority that takes an older write for news.  So until others
have brought it a partition (storage.object.refill), it is no voter there, neither in reading nor in writing: what is asked by an
edition of the rings is refused.  It takes copies, gives bodies of versions that are known by name, and lets itself be compared.
Every partition by itself is trusted again as soon as enough others have vouched that all they hold of it is here.

Neighbours: local (asks before it answers), storage.object.refill (waits, fills).
"""

from __future__ import annotations

from ring.errors import Unavailable
from ring.names import NameHasher, Path, Span, partition_of


def ring_of(path: Path, policy: int) -> str:
    """The ring that says where this is kept."""
    if path.object:
        return f"object-{policy}" if policy else "object"
    return "container" if path.container else "account"


class Trust:
    """Of one device.  ``known`` False: all of it may be missing (nobody has looked which rings name it yet)."""

    __slots__ = ("_hasher", "_waiting", "known", "waits")

    def __init__(self, hasher: NameHasher, *, refills: bool = False) -> None:
        self.waits = refills  # anything is not trusted; asked at every request
        self.known = not refills
        self._hasher = hasher
        self._waiting: dict[str, tuple[int, set[int]]] = {}  # ring: part power, partitions

    def begin(self, waiting: dict[str, tuple[int, set[int]]]) -> None:
        """These partitions, by ring with its part power, are to be refilled; everything else is trusted."""
        self._waiting = {ring: (power, set(numbers)) for ring, (power, numbers) in waiting.items() if numbers}
        self.known = True
        self.waits = bool(self._waiting)

    def filled(self, ring: str, span: Span) -> None:
        power, numbers = self._waiting.get(ring, (span.part_power, set[int]()))
        assert power == span.part_power
        numbers.discard(span.partition)
        if not numbers:
            self._waiting.pop(ring, None)
        self.waits = not self.known or bool(self._waiting)

    def check(self, path: Path, policy: int = 0) -> None:
        """Before what is held of a name, or that nothing is, counts.  Unavailable."""
        ring = ring_of(path, policy)
        if not self.known or self._has(ring, self._hasher.hash(path)):
            raise Unavailable(
                "the device is being refilled: what it lacks says nothing", hint="ringfort node status shows how far it is"
            )

    def vouches(self, ring: str, span: Span) -> bool:
        """Whether what it holds of this span is all that it ever acknowledged."""
        if not self.waits:
            return True
        if not self.known:
            return False
        power, numbers = self._waiting.get(ring, (0, set[int]()))
        shift = power - span.part_power
        if shift <= 0:
            return span.partition >> -shift not in numbers
        return not any(number >> shift == span.partition for number in numbers)

    def speaks(self, kind: str, policy: int, span: Span) -> bool:
        """``vouches``, of what a comparison calls ``kind``: "object", "container", "account", or "book" for both of these."""
        if not self.waits:
            return True
        if kind == "object":
            return self.vouches(f"object-{policy}" if policy else "object", span)
        return all(self.vouches(ring, span) for ring in (("container", "account") if kind == "book" else (kind,)))

    def _has(self, ring: str, name_hash: bytes) -> bool:
        found = self._waiting.get(ring)
        return found is not None and partition_of(name_hash, found[0]) in found[1]

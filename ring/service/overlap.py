"""Overlap: a ring in force together with the settled ring before it, and where the replicas of a path are by both.

Immutable, made anew with every edition, so an operation that holds one has everything from one edition: compare by identity.  While
nothing moves ``settled`` is ``ring`` itself and a look-up is one step in a dictionary.  Pure.

Neighbours: voters, gate (Claim), storage.client.reach (asks), storage's replicators (what is still owed to the settled ring).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from ring.device import Device
from ring.names import Path, Span, partition_of
from ring.placement import NO_DEVICE, Ring, Row
from ring.service.errors import StaleRing
from ring.service.horizon import NO_HORIZON, Horizon
from ring.service.voters import Voters, plain

CACHED_MAX = 1 << 16


class RingSource(Protocol):
    """Who can tell the newest edition that it knows, and the ring files that it names.

    Errors: Unavailable, NotFound (that ring is not in force there any more: ask for the edition again)."""

    async def edition_file(self) -> bytes: ...

    async def ring_part(self, name: str, version: int, offset: int) -> bytes:
        """The file from ``offset``, at most 1 MiB of it; b"" at its end."""


@dataclass(slots=True, eq=False)
class Claim:
    """By which edition an operation goes; one for all operations of a process that go by it."""

    edition: int = 0  # 0: none, devices take it whatever they know
    outdated: StaleRing | None = None  # how a device refused it that keeps to a newer one
    source: RingSource | None = None  # who did: it has that one

    def refused(self, error: StaleRing, source: RingSource | None) -> None:
        if error.edition > self.edition:
            self.outdated, self.source = error, source


@dataclass(frozen=True, slots=True, eq=False)
class Places:
    """``devices``: the primaries of the ring in force first, then those that only the settled ring names."""

    devices: tuple[Device, ...]
    primaries: int  # how many of them are primaries of the ring in force
    voters: Voters
    partition: int  # of the ring in force


@dataclass(frozen=True, slots=True, eq=False)
class Overlap:
    ring: Ring
    settled: Ring
    claim: Claim = field(default_factory=Claim)
    _places: dict[int, Places] = field(default_factory=dict)
    _holders: set[int] | None = None  # made when it is asked for
    horizon: Horizon = NO_HORIZON

    @classmethod
    def of(cls, ring: Ring) -> Overlap:
        """A ring that nothing went before."""
        return cls(ring, ring)

    @property
    def moving(self) -> bool:
        return self.ring is not self.settled

    @property
    def finest(self) -> int:
        """The part power whose partitions lie in one partition of either ring."""
        return max(self.ring.part_power, self.settled.part_power)

    def places(self, path: Path) -> Places:
        number = partition_of(self.ring.hasher.hash(path), self.finest)
        found = self._places.get(number)
        return found if found is not None else self._place(number)

    def _place(self, number: int) -> Places:
        found = self.places_at(number)
        if len(self._places) >= CACHED_MAX:
            self._places.clear()
        self._places[number] = found
        return found

    def places_at(self, number: int) -> Places:
        """Of a partition of the finest power."""
        partition = number >> (self.finest - self.ring.part_power)
        devices = self.ring.primaries(partition)
        count = len(devices)
        if not self.moving:
            return Places(tuple(devices), count, plain(count), partition)
        before = self.settled.primaries(number >> (self.finest - self.settled.part_power))
        known = {device.id: index for index, device in enumerate(devices)}
        for device in before:
            if device.id not in known:
                known[device.id] = len(devices)
                devices.append(device)
        voters = Voters.of(range(count), [known[device.id] for device in before]) if before else plain(count)
        return Places(tuple(devices), count, voters, partition)

    def settled_at(self, span: Span) -> set[int]:
        """The ids of the settled ring's primaries of any of these hashes."""
        shift = self.settled.part_power - span.part_power
        if shift <= 0:
            numbers: Sequence[int] = (span.partition >> -shift,)
        else:
            numbers = range(span.partition << shift, (span.partition + 1) << shift)
        return {device.id for number in numbers for device in self.settled.primaries(number)}

    def moved(self) -> list[int]:
        """The partitions (of the finest power) that have other primaries than before.  Takes some tenths of a second for 2^20."""
        if not self.moving:
            return []
        if len(self.ring.table) != len(self.settled.table):
            suspects: Iterable[int] = range(1 << self.finest)
        else:
            suspects = sorted(
                {p for new, old in zip(self.ring.table, self.settled.table, strict=True) for p in self._unlike(new, old)}
            )
        return [number for number in suspects if len(self.places_at(number).voters.groups) > 1]

    def _unlike(self, new: Row, old: Row) -> list[int]:
        """Where one row of the table says something else than the same row before."""
        fine, coarse = self.finest - self.ring.part_power, self.finest - self.settled.part_power
        if fine == coarse and len(new) == len(old):
            return [number for number, (one, other) in enumerate(zip(new, old, strict=True)) if one != other]
        news, olds = len(new), len(old)
        return [
            number
            for number in range(1 << self.finest)
            if (new[number >> fine] if number >> fine < news else NO_DEVICE)
            != (old[number >> coarse] if number >> coarse < olds else NO_DEVICE)
        ]

    @property
    def holders(self) -> set[int]:
        """The ids of all devices with a replica by either ring."""
        if self._holders is None:
            rows = (*self.ring.table, *self.settled.table)
            object.__setattr__(self, "_holders", set[int]().union(*map(set, rows)) - {NO_DEVICE})
        assert self._holders is not None
        return self._holders

"""Bringing a ring's table to its targets: the first placement, and one pass of moves.

Decides which replica goes where; ``quota.py`` says how many each device should hold, ``builder.py`` keeps the outcome.  Pure and
deterministic from the seed.

The first placement is systematic sampling, tier by tier: a tier's replicas are laid in a line, each partition once per round
and every round in the same shuffled order, and cut into one piece per child.  A piece no longer than a round has no partition
twice, and a longer one has each as often as any other, give or take one: so every tier is spread as evenly as its quota allows.

A pass moves at most one replica of any partition.  Surplus goes straight to devices below their quota; what cannot go straight goes
along a path of devices, each handing on one replica (an augmenting path); then crowded partitions trade places with others.
"""

from __future__ import annotations

import itertools
from array import array
from collections.abc import Callable, Iterator, Sequence

from ring.device import Device
from ring.quota import Targets, Tier, tiers_of
from ring.shuffle import Shuffler

TRADE_TRIES = 48  # partitions looked at for one trade before the next device is asked


def place_all(devices: Sequence[Device], targets: Targets, rows: Sequence[int], seed: int) -> tuple[array[int], ...]:
    """A new table: ``rows`` are the lengths of its rows, the last may be shorter."""
    partitions = rows[0]
    shuffler = Shuffler(seed)
    line = [p for row in rows for p in range(row)]
    held = _divide((), line, sorted((d for d in devices if d.id in targets.quotas), key=lambda d: d.id), targets, shuffler)
    holders: list[list[int]] = [[] for _ in range(partitions)]
    for device_id, its_partitions in sorted(held.items()):
        for partition in its_partitions:
            holders[partition].append(device_id)
    for ids in holders:
        shuffler.shuffle(ids)  # so that no device is always the first asked
    return tuple(array("H", (holders[p][index] for p in range(row))) for index, row in enumerate(rows))


def _divide(tier: Tier, line: list[int], devices: Sequence[Device], targets: Targets, shuffler: Shuffler) -> dict[int, list[int]]:
    """Give the partitions in ``line`` to the devices below ``tier``; by device id."""
    if len(tier) == 4:
        return {devices[0].id: line}
    counts: dict[int, int] = {}
    for partition in line:
        counts[partition] = counts.get(partition, 0) + 1
    rounds = max(counts.values(), default=0)
    first = sorted(p for p, count in counts.items() if count == rounds)
    rest = sorted(p for p, count in counts.items() if count < rounds)
    shuffler.shuffle(first)
    shuffler.shuffle(rest)
    laid = (first + rest) * (rounds - 1) + first if rest else first * rounds
    children: dict[Tier, list[Device]] = {}
    for device in devices:
        children.setdefault((*tiers_of(device)[-1], device.id)[: len(tier) + 1], []).append(device)
    result: dict[int, list[int]] = {}
    start = 0
    for child in sorted(children):
        quota = sum(targets.quotas[d.id] for d in children[child])
        result.update(_divide(child, laid[start : start + quota], children[child], targets, shuffler))
        start += quota
    return result


class Pass:
    """One pass over a table, which it changes in place.

    ``movable(partition, device id)`` says whether that replica may move now; a partition that has moved in this pass may not again.
    """

    def __init__(
        self,
        table: Sequence[array[int]],
        devices: Sequence[Device],
        targets: Targets,
        movable: Callable[[int, int], bool],
        seed: int,
    ) -> None:
        self._table = table
        self._devices = {device.id: device for device in devices}
        self._targets = targets
        self._movable = movable
        self._shuffler = Shuffler(seed)
        self.moved: dict[int, int] = {}  # partition -> how often; more than 1 would be a bug
        self._holders: list[list[int]] = [[] for _ in range(len(table[0]))]
        self._held: dict[int, set[int]] = {device.id: set() for device in devices}
        for row in table:
            for partition, device_id in enumerate(row):
                self._holders[partition].append(device_id)
                self._held[device_id].add(partition)

    def run(self) -> None:
        for device_id in self._overfull():
            self._give_away(device_id)
        for device_id in self._overfull():
            while self._surplus(device_id) > 0 and self._hand_on(device_id):
                pass
        self._trade_crowded()

    # ---- the state of the pass

    def _surplus(self, device_id: int) -> int:
        return len(self._held[device_id]) - self._targets.quotas.get(device_id, 0)

    def _overfull(self) -> list[int]:
        return [i for _, i in sorted((-self._surplus(i), i) for i in self._devices if self._surplus(i) > 0)]

    def _free(self, partition: int, device_id: int) -> bool:
        return partition not in self.moved and self._movable(partition, device_id)

    def _excess(self, partition: int, leaving: int | None = None, coming: int | None = None) -> int:
        ids = [i for i in self._holders[partition] if i != leaving]
        if coming is not None:
            ids.append(coming)
        return self._targets.excess(self._devices[i] for i in ids)

    def _move(self, partition: int, source: int, target: int) -> None:
        assert partition not in self._held[target], "two replicas of a partition on one device"
        index = self._holders[partition].index(source)
        self._holders[partition][index] = target
        self._table[index][partition] = target
        self._held[source].discard(partition)
        self._held[target].add(partition)
        self.moved[partition] = self.moved.get(partition, 0) + 1

    def _candidates(self, device_id: int) -> list[int]:
        """The partitions that the device may hand on, in random order."""
        result = sorted(p for p in self._held[device_id] if self._free(p, device_id))
        self._shuffler.shuffle(result)
        return result

    # ---- the three steps

    def _give_away(self, source: int) -> None:
        """Straight moves to devices below quota that make no partition more crowded."""
        room = {i: -self._surplus(i) for i in self._targets.quotas if self._surplus(i) < 0}
        surplus = self._surplus(source)
        for partition in sorted(self._candidates(source), key=lambda p: self._excess(p, source) - self._excess(p)):
            if surplus == 0 or not room:
                return
            before = self._excess(partition)
            choices = sorted(room, key=lambda i: (-room[i] / self._targets.quotas[i], i))
            legal = (i for i in choices if partition not in self._held[i])
            target = next((i for i in legal if self._excess(partition, source, i) <= max(0, before - 1)), None)
            if target is None:
                legal = (i for i in choices if partition not in self._held[i])
                target = next((i for i in legal if self._excess(partition, source, i) <= before), None)
            if target is None:
                continue
            self._move(partition, source, target)
            surplus -= 1
            room[target] -= 1
            if room[target] == 0:
                del room[target]

    def _hand_on(self, source: int) -> bool:
        """One replica leaves ``source`` and one arrives at a device below quota, by the shortest path between; False if none is."""
        came_from: dict[int, tuple[int, int]] = {}  # device -> (the device before it, the partition handed on)
        frontier = [source]
        while frontier:
            following = []
            for giver in frontier:
                candidates = self._candidates(giver)
                for taker in sorted(self._targets.quotas):
                    if taker == source or taker in came_from:
                        continue
                    path = self._path(came_from, source, giver)
                    partition = self._best(candidates, giver, taker, {p for _, p, _ in path})
                    if partition is None:
                        continue
                    came_from[taker] = (giver, partition)
                    if self._surplus(taker) < 0:
                        for start, handed, end in [*path, (giver, partition, taker)]:
                            self._move(handed, start, end)
                        return True
                    following.append(taker)
            frontier = following
        return False

    def _best(self, candidates: Sequence[int], giver: int, taker: int, used: set[int]) -> int | None:
        """A partition to hand on, one that does not get more crowded if there is such."""
        taken = self._held[taker]
        legal = list(itertools.islice((p for p in candidates if p not in taken and p not in used), TRADE_TRIES))
        harmless = (p for p in legal if self._excess(p, giver, taker) <= self._excess(p))
        return next(harmless, legal[0] if legal else None)

    @staticmethod
    def _path(came_from: dict[int, tuple[int, int]], source: int, device_id: int) -> list[tuple[int, int, int]]:
        steps = []
        while device_id != source:
            before, partition = came_from[device_id]
            steps.append((before, partition, device_id))
            device_id = before
        return steps[::-1]

    def _trade_crowded(self) -> None:
        """Crowded partitions trade one replica with a partition to which that does no harm; every device keeps its count."""
        for partition in range(len(self._holders)):
            if partition not in self.moved and self._excess(partition) > 0:
                for source, other, target in self._trades(partition):
                    self._move(partition, source, target)
                    self._move(other, target, source)
                    break

    def _trades(self, partition: int) -> Iterator[tuple[int, int, int]]:
        """(our device, the other partition, its device): trades that leave both less or equally crowded."""
        before = self._excess(partition)
        takers = sorted(i for i in self._targets.quotas if partition not in self._held[i])
        self._shuffler.shuffle(takers)
        for source in self._holders[partition]:
            if not self._free(partition, source) or source not in self._targets.quotas:
                continue
            for target in takers:
                if self._excess(partition, source, target) >= before:
                    continue
                others = sorted(self._held[target] - self._held[source])
                start = self._shuffler.below(len(others)) if others else 0
                for other in (others[start:] + others[:start])[:TRADE_TRIES]:
                    if self._free(other, target) and self._excess(other, target, source) <= self._excess(other):
                        yield source, other, target

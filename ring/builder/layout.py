"""The first placement of a table: every device at its quota, every partition spread as evenly as the quotas allow.  Pure; numpy.

Systematic sampling, tier by tier.  A tier's replicas are laid in a line, each of its partitions once per round and every round
in the same random order, and the line is cut into one piece per child, as long as the child's quota.  A piece no longer than a
round has no partition twice, and a longer one has each as often as any other, give or take one: so every child is as even as
its parent, and by induction no tier holds more of a partition than ceil(quota / partitions).  (McNaughton's wrap-around rule;
Madow 1949.)  Partitions that a tier holds one time more than others come first in its order, so that the line stays periodic to
its end.

The pieces of one round follow each other, so a child shares partitions with few of its siblings.  Where a tier holds several
replicas of a partition, random legal exchanges between partitions mend that: a device's partitions are then shared with nearly all
devices that may hold them (scatter width), and many take part when it is rebuilt.

Neighbours: ``quota.py`` (how much), ``moves.py`` (a table that exists).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from ring.builder.measure import Ints, Levels, Table, alike
from ring.builder.shuffle import Shuffler, mix, order_by
from ring.device import Device
from ring.placement import NO_DEVICE

EXCHANGE_ROUNDS = 16
_ABSENT = -1


def lay_out(devices: Sequence[Device], quotas: Mapping[int, int], rows: Sequence[int], seed: int) -> Table:
    """``quotas`` by device id, their sum that of ``rows``, the lengths of the table's rows."""
    shuffler = Shuffler(seed)
    holding = [device for device in devices if quotas.get(device.id, 0) > 0]
    levels = Levels(holding)
    partitions = rows[0]
    node = np.full((len(rows), partitions), _ABSENT, np.int32)  # which tier of the level at hand each replica is in
    for row, length in enumerate(rows):
        node[row, :length] = 0
    parent_of = np.zeros(NO_DEVICE + 1, np.int32)
    for level in range(4):
        index = levels.index[level]
        sizes = np.zeros(len(levels.tiers[level]), np.int64)
        parents = np.zeros(len(levels.tiers[level]), np.int32)
        for device in holding:
            sizes[index[device.id]] += quotas[device.id]
            parents[index[device.id]] = parent_of[device.id]
        if len(sizes) > int(parents.max()) + 1:  # else every tier has one child
            node = _divide(node, sizes, parents, shuffler)
        parent_of = index
    ids = np.array([int(tier[3]) for tier in levels.tiers[3]] + [NO_DEVICE], np.uint16)
    return _rows_in_random_order(ids[node], rows, shuffler)


def _divide(node: Ints, sizes: NDArray[np.int64], parents: Ints, shuffler: Shuffler) -> Ints:
    """The replicas of every tier divided among its children, which have ``sizes`` replicas and stand in ``parents``."""
    present = node != _ABSENT
    count, first = alike(node)
    tier_count = int(parents.max()) + 1
    most = np.zeros(tier_count, np.int32)
    np.maximum.at(most, node[present], count[present])
    period = np.bincount(node[first & present], minlength=tier_count)  # distinct partitions of each tier
    place = _places(node, count, first & present, most, shuffler)
    copy = np.zeros(node.shape, np.int64)
    for one in range(len(node)):
        for other in range(one):
            same = node[one] == node[other]
            copy[one] += same
            place[one] = np.where(same, place[other], place[one])
    # the lines of all tiers, one behind the other, and what they are cut into
    lengths = np.bincount(node[present], minlength=tier_count)
    line = (np.cumsum(lengths) - lengths)[node] + copy * period[node] + place
    by_parent = shuffler.order(len(parents), parents.astype(np.uint64))
    pieces = np.repeat(by_parent.astype(np.int32), sizes[by_parent])
    children = np.where(present, pieces[np.where(present, line, 0)], np.int32(_ABSENT))
    for tier in np.flatnonzero(most > 1):
        if np.count_nonzero(parents == tier) > 1:
            _exchange(children, node == tier, parents == tier, shuffler)
    return children


def _places(node: Ints, count: Ints, first: NDArray[np.bool_], most: Ints, shuffler: Shuffler) -> NDArray[np.int64]:
    """The place of each partition in its tier's round, at the first of its replicas in the tier: at random, those of which the tier
    holds one more than of others first."""
    partitions = node.shape[1]
    salt = shuffler.words(partitions)
    own = mix(salt + node.astype(np.uint64) * np.uint64(0xD1342543DE82EF95))  # independent from tier to tier
    fewer = count < most[node]
    flat = np.flatnonzero(first)
    groups = (node.ravel()[flat].astype(np.uint64) << np.uint64(1)) | fewer.ravel()[flat].astype(np.uint64)
    order = flat[order_by(own.ravel()[flat], groups)]
    tiers = node.ravel()[order]
    starts = np.searchsorted(tiers, np.arange(len(most)))
    place = np.zeros(node.size, np.int64)
    place[order] = np.arange(len(order)) - starts[tiers]
    return place.reshape(node.shape)


def _exchange(children: Ints, here: NDArray[np.bool_], siblings: NDArray[np.bool_], shuffler: Shuffler) -> None:
    """Pairs of partitions exchange one child, where both stay within what the children hold of any partition, at most and at
    least."""
    involved = np.flatnonzero(here.any(axis=0))
    mine = np.where(here[:, involved], children[:, involved], _ABSENT)
    count, _ = alike(mine)
    held = np.zeros(len(siblings) + 1, np.int32)
    np.maximum.at(held, mine[mine != _ABSENT], count[mine != _ABSENT])
    single = bool((held <= 1).all())
    least = np.zeros(len(siblings) + 1, np.int32)
    if not single:
        for child in np.flatnonzero(siblings):
            least[child] = int((mine == child).sum(axis=0).min())
    half = len(involved) // 2
    for _ in range(EXCHANGE_ROUNDS):
        order = shuffler.round_trip(len(involved))
        one, two = order[0 : 2 * half : 2], order[1::2]  # neighbours: halves would be the same pairs in every round
        row_one, row_two = shuffler.below(len(mine), half), shuffler.below(len(mine), half)
        a, b = mine[row_one, one], mine[row_two, two]
        legal = (a != b) & (a != _ABSENT) & (b != _ABSENT)
        a_in_two, b_in_one = (mine[:, two] == a).sum(axis=0), (mine[:, one] == b).sum(axis=0)
        legal &= (a_in_two < held[a]) & (b_in_one < held[b])
        if not single:
            legal &= ((mine[:, one] == a).sum(axis=0) > least[a]) & ((mine[:, two] == b).sum(axis=0) > least[b])
        mine[row_one[legal], one[legal]] = b[legal]
        mine[row_two[legal], two[legal]] = a[legal]
    block = children[:, involved]
    children[:, involved] = np.where(here[:, involved], mine, block)


def _rows_in_random_order(table: NDArray[np.uint16], rows: Sequence[int], shuffler: Shuffler) -> Table:
    """No tier should be first in the rows more often than its size says.  A short last row keeps its length."""
    for row in range(len(rows) - 1, 0, -1):
        length = rows[row]
        other = shuffler.below(row + 1, length)
        columns = np.arange(length)
        mine = table[row, :length].copy()
        table[row, :length] = table[other, columns]
        table[other, columns] = mine
    return tuple(table[row, :length].copy() for row, length in enumerate(rows))

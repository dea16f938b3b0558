"""Comparing: what the others hold of a partition, for those who may let go of something because of it.

Asks every other device that is to hold the partition: the primaries of the ring in force and, while it moves, of the settled one.
One that does not answer has said nothing.  One that is behind (storage.sync.standing) speaks for nobody: what it holds may have
been deleted, and what it lacks it may not have been brought yet.  Nor does one that is being refilled: it lacks what it had.

Neighbours: the reclaimers of storage.object and storage.container (ask), storage.sync.tree (what is compared).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from ring.device import Device
from ring.errors import DiskFault, NotFound, Unavailable
from ring.names import Span
from ring.service.overlap import Overlap
from storage.client.node import LeafDigests, Node
from storage.sync.tree import differing

HASH_BYTES = 16
KeyDigest = tuple[bytes, bytes]


@dataclass(frozen=True, slots=True)
class Answer:
    node: Node
    digests: LeafDigests


@dataclass(frozen=True, slots=True)
class Others:
    """``silent``: how many did not answer, are behind, or are being refilled."""

    answers: Sequence[Answer]
    silent: int
    kind: str = "object"

    @property
    def count(self) -> int:
        return len(self.answers) + self.silent

    def differ(self, mine: LeafDigests) -> set[int]:
        """Leaves in which any of them differs."""
        return set[int]().union(*(differing(mine, answer.digests) for answer in self.answers))

    def differ_all(self, mine: LeafDigests) -> set[int]:
        """Leaves in which all of them differ: what is in another leaf, one of them holds exactly so."""
        leaves = set(mine.leaves)
        for answer in self.answers:
            leaves &= set(differing(mine, answer.digests))
        return leaves

    async def leaf(self, span: Span, leaf: int) -> list[Mapping[bytes, KeyDigest]] | None:
        """What each of them holds of a leaf, by the hash of the name; None when one does not answer."""
        try:
            return [by_hash(await answer.node.leaf(self.kind, span, leaf)) for answer in self.answers]
        except (Unavailable, DiskFault, NotFound):
            return None


def holders(overlap: Overlap, span: Span) -> list[Device]:
    """Who is to hold this partition of the ring in force, that ring's primaries first."""
    found = {device.id: device for device in overlap.ring.primaries(span.partition)}
    if overlap.moving:
        for device_id in sorted(overlap.settled_at(span)):
            found.setdefault(device_id, overlap.settled.device(device_id))
    return list(found.values())


async def ask(
    devices: Iterable[Device], nodes: Callable[[Device], Node], overlap: Overlap, span: Span, *, clean: int, kind: str = "object"
) -> Others:
    """``clean``: those that are not clean up to there (ticks) count as silent.  ``kind``: of what they hold, as of Node.digests."""
    answers: list[Answer] = []
    silent = 0
    for device in devices:
        try:
            node = nodes(device)
            if overlap.claim.edition:
                node = node.under(overlap.claim)
            digests = await node.digests(kind, span)
        except (Unavailable, DiskFault, NotFound):
            silent += 1
            continue
        if digests.clean < clean:
            silent += 1
        else:
            answers.append(Answer(node, digests))
    return Others(answers, silent, kind)


def by_hash(keys: Sequence[KeyDigest]) -> Mapping[bytes, KeyDigest]:
    """The newest version of each name: its key is the least, versions being inverted timestamps.  A book's key is its hash."""
    newest: dict[bytes, KeyDigest] = {}
    for key, digest in sorted(keys, reverse=True):
        newest[key[:HASH_BYTES]] = (key, digest)
    return newest

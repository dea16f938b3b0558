"""Mutants: broken promises, put in from outside, that the checkers must notice.

skip-fsync           disks acknowledge a sync and make nothing durable
ack-at-one-replica   a write stands as soon as one primary has it
delete-on-timeout    a node that cannot be reached counts as one that has nothing
forget-the-old-ring  while a partition moves, front doors ask the devices of the new ring alone
settle-at-once       a new ring is settled as soon as it is in force: no replicator was asked
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from ring.errors import Unavailable
from ring.names import Path
from ring.service.overlap import Claim, Overlap
from ring.timestamp import Timestamp
from storage.client.node import Debt, Node, NodeReading, Version, WriteReply
from storage.client.quorum import Verdict, WriteQuorum
from tests.sim.cluster import Options


def skip_fsync(options: Options) -> None:
    options.ignores_sync = True


class OneReplica(WriteQuorum):
    def verdict(self) -> Verdict | None:
        if self.stored:
            return Verdict.STORED
        return super().verdict()


def ack_at_one_replica(options: Options) -> None:
    options.write_quorum = OneReplica


class TakesSilenceForAbsence:
    """A Node that believes a timeout to be an answer: reads find nothing, and what was pushed counts as arrived."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self.device = node.device

    def under(self, claim: Claim | None) -> Node:
        return cast(Node, TakesSilenceForAbsence(self._node.under(claim)))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._node, name)

    async def head(self, path: Path) -> Version | None:
        try:
            return await self._node.head(path)
        except Unavailable:
            return None

    async def get(self, path: Path, timestamp: Timestamp | None, offset: int, length: int | None) -> NodeReading | None:
        try:
            return await self._node.get(path, timestamp, offset, length)
        except Unavailable:
            return None

    async def put_small(self, version: Version, data: bytes, debt: Debt | None) -> WriteReply:
        try:
            return await self._node.put_small(version, data, debt)
        except Unavailable:
            if debt is None:  # a repair or a handoff's push: believed to be there, so the handoff lets go of it
                return WriteReply(version.timestamp, paid=True)
            raise


def delete_on_timeout(options: Options) -> None:
    options.wrap_node = lambda node: cast(Node, TakesSilenceForAbsence(node))  # the rest goes through __getattr__


def forget_the_old_ring(options: Options) -> None:
    options.see_ring = lambda overlap: Overlap(overlap.ring, overlap.ring, overlap.claim)
    options.ring_changes = 1.0


def settle_at_once(options: Options) -> None:
    options.waits_for = lambda name, overlap, confirmed: False
    options.ring_changes = 1.0


MUTANTS: dict[str, Callable[[Options], None]] = {
    "skip-fsync": skip_fsync,
    "ack-at-one-replica": ack_at_one_replica,
    "delete-on-timeout": delete_on_timeout,
    "forget-the-old-ring": forget_the_old_ring,
    "settle-at-once": settle_at_once,
}

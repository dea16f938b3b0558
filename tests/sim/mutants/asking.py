"""Broken front doors, repairs and agents."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

from ring.errors import Unavailable
from ring.names import Path, Span
from ring.service.gate import Gate
from ring.service.overlap import Claim, Overlap, Places
from ring.service.voters import Voters
from ring.timestamp import Timestamp
from storage.client.node import Debt, Kind, Node, Version, WriteReply
from storage.client.quorum import Outcome, Reply, Verdict, WriteQuorum
from tests.sim.options import Options

PARTED = {"seesaw": 4.0, "isolate": 4.0, "cut": 3.0, "power": 2.0, "freeze": 1.0}  # machines that do not hear of each other


class OneReplica(WriteQuorum):
    def verdict(self) -> Verdict | None:
        if self.stored:
            return Verdict.STORED
        return super().verdict()


def ack_at_one_replica(options: Options) -> None:
    """A write stands as soon as one primary has it."""
    options.write_quorum = OneReplica
    options.traits = replace(options.traits, destructive=0.0, kinds=PARTED)


class HandoffsCount(WriteQuorum):
    def receive(self, replica: int, reply: Reply) -> Verdict | None:
        missing = self.voters.everybody & ~self.stored
        if replica >= self.voters.count and reply.outcome is Outcome.STORED and missing:
            return super().receive((missing & -missing).bit_length() - 1, reply)
        return super().receive(replica, reply)

    def verdict(self) -> Verdict | None:
        """Primaries that cannot be reached do not settle it: others stand in for them."""
        verdict = super().verdict()
        return None if verdict is Verdict.UNAVAILABLE else verdict

    def at_the_end(self) -> Verdict:
        verdict = self.verdict()
        return verdict if verdict is not None else Verdict.UNAVAILABLE


def handoff_counts(options: Options) -> None:
    """A handoff's copy counts as that of the primary it stands in for."""
    options.write_quorum = HandoffsCount
    options.traits = replace(options.traits, destructive=0.0, kinds=PARTED)


class OneIsEnough(Voters):
    def majority(self, replicas: int) -> bool:
        return bool(replicas & self.everybody)


class ReadByOne(Overlap):
    def places_at(self, number: int) -> Places:
        places = super().places_at(number)
        return replace(places, voters=OneIsEnough(places.voters.count, places.voters.groups))


def read_one_replica(options: Options) -> None:
    """A read believes the first primary that answers; writes are as they should be."""
    options.see_ring = lambda overlap: ReadByOne(overlap.ring, overlap.settled, overlap.claim)
    options.write_quorum = lambda voters: WriteQuorum(Voters(voters.count, voters.groups))


class Wrapped:
    """A Node that does all that the real one does."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self.device = node.device

    def under(self, claim: Claim | None) -> Node:
        return cast(Node, type(self)(self._node.under(claim)))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._node, name)


class TakesSilenceForAbsence(Wrapped):
    """Reads of a node that cannot be reached find nothing, and what was pushed to it counts as arrived."""

    async def head(self, path: Path, *args: Any, **kwargs: Any) -> Any:
        try:
            return await self._node.head(path, *args, **kwargs)
        except Unavailable:
            return None

    async def get(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return await self._node.get(*args, **kwargs)
        except Unavailable:
            return None

    async def put_small(self, version: Version, data: Any, debt: Debt | None, *args: Any, **kwargs: Any) -> Any:
        try:
            return await self._node.put_small(version, data, debt, *args, **kwargs)
        except Unavailable:
            if debt is None:  # a repair or a handoff's push: believed to be there, so the handoff lets go of it
                return WriteReply(version.timestamp, paid=True)
            raise


def delete_on_timeout(options: Options) -> None:
    """A node that cannot be reached counts as one that has nothing."""
    options.wrap_node = lambda node: cast(Node, TakesSilenceForAbsence(node))


class RepairsAnything(Wrapped):
    """Says of no version that it is there, and takes what is pushed to it as the newest."""

    async def leaf(self, kind: str, span: Span, leaf: int, *args: Any, **kwargs: Any) -> Sequence[tuple[bytes, bytes]]:
        found: Sequence[tuple[bytes, bytes]] = await self._node.leaf(kind, span, leaf, *args, **kwargs)
        return [] if kind == "object" else found

    async def put_small(self, version: Version, data: Any, debt: Debt | None, *args: Any, **kwargs: Any) -> Any:
        if debt is None and version.kind is Kind.OBJECT:
            held = await self._node.head(version.path, *args, **kwargs)
            if held is not None and held.timestamp > version.timestamp:
                version = replace(version, timestamp=Timestamp(held.timestamp.ticks + 1))
        return await self._node.put_small(version, data, debt, *args, **kwargs)


def repair_older_over_newer(options: Options) -> None:
    """What a repair brings is the newest, whatever is there."""
    options.wrap_node = lambda node: cast(Node, RepairsAnything(node))


def forget_the_old_ring(options: Options) -> None:
    """While a partition moves, front doors ask the devices of the new ring alone."""
    options.see_ring = lambda overlap: Overlap(overlap.ring, overlap.ring, overlap.claim)
    options.traits = replace(options.traits, ring_changes=1.0, destructive=0.0, kinds=PARTED)


def settle_at_once(options: Options) -> None:
    """A new ring is settled as soon as it is in force: no replicator was asked."""
    options.waits_for = lambda name, overlap, confirmed: False
    options.traits = replace(options.traits, ring_changes=1.0, destructive=0.0, kinds=PARTED)


class OpenGate(Gate):
    """Takes what is asked by any edition."""

    __slots__ = ("_gate",)

    def __init__(self, gate: Gate) -> None:
        self._gate = gate

    @property
    def edition(self) -> int:  # type: ignore[override]  # of the one it stands in front of
        return self._gate.edition

    def check(self, edition: int) -> None:
        return

    def check_known(self, edition: int) -> None:
        return

    def enter(self, edition: int) -> int:
        return self._gate.enter(0)

    def leave(self, at: int) -> None:
        self._gate.leave(at)


def drop_the_ring_version_check(options: Options) -> None:
    """Devices take requests by editions of the rings that are no longer in force."""
    options.gate = OpenGate
    kinds = {"hermit": 3.0, "seesaw": 3.0, "deaf": 3.0, "cut": 2.0, "isolate": 2.0, "freeze": 2.0, "delay": 1.0, "jitter": 1.0}
    options.traits = replace(options.traits, ring_changes=1.0, destructive=0.0, kinds=kinds)

"""Reach: what every operation of the facade is made with: the rings, the nodes behind their devices, timestamps, limits.

Holds no decision.  Neighbours: objects, books and large (its users), cluster (which builds it).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import trio

from ring.device import Device
from ring.errors import BadInput, Unavailable
from ring.names import Path
from ring.policy import Consistency, Policies
from ring.service.errors import StaleRing
from ring.service.overlap import Claim, Overlap
from ring.service.voters import Voters
from ring.timestamp import TimestampSource
from ring.world.interface import World
from storage.client.errors import NoQuorum, NoRoom
from storage.client.fanout import Fanout
from storage.client.handoff import HandoffOrder
from storage.client.node import Node
from storage.client.quorum import WriteQuorum
from storage.erasure.interface import Coding

T = TypeVar("T")


@dataclass(slots=True)
class Rings:
    """The rings in force, each with the settled one before it.  Those of a newer edition replace the fields; who took one goes on
    with it.  ``objects`` by policy index."""

    account: Overlap
    container: Overlap
    objects: Mapping[int, Overlap]

    def take(self, overlaps: Mapping[str, Overlap]) -> None:
        """Those of an edition, by name."""
        self.account, self.container = overlaps["account"], overlaps["container"]
        self.objects = {policy: overlaps[name] for name, policy in _policies(overlaps).items()}

    @classmethod
    def of(cls, overlaps: Mapping[str, Overlap]) -> Rings:
        rings = cls(overlaps["account"], overlaps["container"], {})
        rings.take(overlaps)
        return rings

    def of_policy(self, policy: int) -> Overlap:
        try:
            return self.objects[policy]
        except KeyError:
            raise BadInput(f"there is no storage policy {policy}") from None


@dataclass(frozen=True, slots=True)
class Settings:
    """Limits of the facade.  Times are on trio's clock."""

    read_timeout_s: float = 5.0  # for a majority's index to answer
    write_timeout_s: float = 10.0  # for a majority to be durable
    grace_s: float = 0.05  # for the others, when a majority answered and more is worth knowing
    row_wait_s: float = 1.0  # for the container's rows, when the object is durable
    stall_s: float = 5.0  # a replica whose queue stays full this long is left behind once a majority keeps up
    pack_cut_bytes: int = 256 << 10  # bodies up to this go to all replicas at once
    chunk_bytes: int = 1 << 20
    queue_chunks: int = 2  # of a large body, per replica
    offload_bytes: int = 64 << 10  # digests of more than this are made on a thread
    container_cache_s: float = 5.0
    repair_queue: int = 256
    repair_delay_s: float = 1.0  # writes that are still on their way finish in this time
    write_attempts: int = 10  # to get above what others write at the same time
    aside_s: float = 0.002  # the first wait between them, at most; each next one may be twice as long
    read_attempts: int = 4  # of a body that is replaced between the look at it and the reading of it
    register_s: float = 20.0  # for a conditional write to get its turn among others
    promise_wait_s: float = 1.0  # for a conditional write to end, when a read or a POST meets it
    edition_attempts: int = 5  # of an operation that devices refuse, because newer rings are in force with them


@dataclass(slots=True)
class Replicas:
    """The nodes of a path, those of the ring in force first, and whose majority counts."""

    overlap: Overlap
    partition: int  # of the ring in force
    nodes: Sequence[Node]
    voters: Voters
    policy: int = 0
    shard: str = ""  # of rows: the shard of the container that they are in, if it is not the container itself

    def handoffs(self) -> HandoffOrder:
        return HandoffOrder(self.overlap.ring, self.partition, {node.device.id for node in self.nodes})

    def short(self, message: str, full: int = 0) -> NoQuorum | StaleRing:
        """Too few answered: because they go by newer rings, because some (bits of replicas) are full, or for another reason."""
        outdated = self.overlap.claim.outdated
        if full and not self.voters.majority(~full):
            return NoRoom(f"{message}: its devices are full", hint="delete what is not needed, or add devices")
        return NoQuorum(message) if outdated is None else Outdated(message, self.overlap.claim)


class NewFirst:
    """The order in which a large body comes to be seen while its partition moves: at a device that only the settled ring names when
    a majority of the new ring's primaries holds it.  So what a majority of the settled ring's holds was there before the move, and
    is moved before that ring is forgotten, or the new ring's hold it too."""

    def __init__(self, voters: Voters, held: int, timeout_s: float) -> None:
        self._voters = voters
        self._held = held
        self._timeout_s = timeout_s
        self._there = trio.Event()
        self.took()

    def took(self, *replicas: int) -> None:
        for replica in replicas:
            self._held |= 1 << replica
        if self._voters.newest(self._held):
            self._there.set()

    async def turn(self, replica: int) -> None:
        """Unavailable when it does not come."""
        if not self._voters.leaving >> replica & 1:
            return
        with trio.move_on_after(self._timeout_s):
            await self._there.wait()
        if not self._there.is_set():
            raise Unavailable("too few primaries of the new ring took it")


class Outdated(StaleRing):
    """Too few devices go by the rings of this claim any more."""

    def __init__(self, message: str, claim: Claim) -> None:
        super().__init__(message, edition=claim.edition)
        self.claim = claim


async def _cannot_renew(claim: Claim) -> bool:
    return False


@dataclass(slots=True)
class Reach:
    world: World
    rings: Rings
    nodes: Callable[[Device], Node]
    timestamps: TimestampSource
    fanout: Fanout
    settings: Settings
    write_quorum: Callable[[Voters], WriteQuorum]
    policies: Policies | None = None  # None: all are of whole copies
    renew: Callable[[Claim], Awaitable[bool]] = field(default=_cannot_renew)  # brings newer rings in force; False: not now

    def replicas(self, overlap: Overlap, path: Path, policy: int = 0) -> Replicas:
        places = overlap.places(path)
        claim = overlap.claim
        nodes = self.nodes
        found = [nodes(device) for device in places.devices]
        if policy:
            found = [node.of(policy) for node in found]
        if claim.edition:
            found = [node.under(claim) for node in found]
        return Replicas(overlap, places.partition, found, places.voters, policy)

    def coding(self, policy: int) -> Coding | None:
        """How the objects of a policy are coded; None: they are whole copies."""
        found = self.policies.by_index(policy) if self.policies is not None else None
        return Coding(found.k, found.m) if found is not None and found.coded else None

    def available(self, policy: int) -> bool:
        """Whether the objects of a policy are written to and read from whom there is (storage.client.available)."""
        found = self.policies.by_index(policy) if self.policies is not None else None
        return found is not None and found.consistency is Consistency.AVAILABLE

    def objects(self, policy: int, path: Path) -> Replicas:
        """Of an object, by the rings in force now.  BadInput when there is no such policy."""
        return self.replicas(self.rings.of_policy(policy), path, policy)

    def handoff(self, replicas: Replicas, device: Device) -> Node:
        """A device that stands in for one of these; it is asked by no claim."""
        node = self.nodes(device)
        return node.of(replicas.policy) if replicas.policy else node

    async def current(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """The outcome of ``attempt``, made again by newer rings when devices refuse those it went by."""
        for _ in range(self.settings.edition_attempts):
            try:
                return await attempt()
            except Outdated as error:
                last = error
                if not await self.renew(error.claim):
                    break
        raise NoQuorum(last.message, hint="the devices go by newer rings, which cannot be fetched now") from last

    async def step_aside(self, attempt: int) -> None:
        """Wait for a while that is drawn by lot, longer from attempt to attempt: of many writers of one key, some get through."""
        await trio.sleep(self.world.rng.random() * self.settings.aside_s * 2**attempt)


def _policies(names: Mapping[str, Overlap]) -> dict[str, int]:
    """The object rings among these names: ``object`` is policy 0, ``object-N`` is N."""
    return {name: int(name.partition("-")[2] or 0) for name in names if name.partition("-")[0] == "object"}

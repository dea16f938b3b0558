"""Reach: what every operation of the facade is made with: the rings, the nodes behind their devices, timestamps, limits.

Holds no decision.  Neighbours: objects, books and large (its users), cluster (which builds it).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import trio

from ring.device import Device
from ring.errors import BadInput
from ring.names import Path
from ring.placement import Ring
from ring.timestamp import TimestampSource
from ring.world.interface import World
from storage.client.fanout import Fanout
from storage.client.handoff import HandoffOrder
from storage.client.node import Node
from storage.client.quorum import WriteQuorum


@dataclass(slots=True)
class Rings:
    """The rings in force; a reload replaces the fields.  ``objects`` by policy index."""

    account: Ring
    container: Ring
    objects: Mapping[int, Ring]

    def of_policy(self, policy: int) -> Ring:
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


@dataclass(slots=True)
class Replicas:
    """The nodes of one partition."""

    ring: Ring
    partition: int
    nodes: Sequence[Node]

    def handoffs(self) -> HandoffOrder:
        return HandoffOrder(self.ring, self.partition)


@dataclass(slots=True)
class Reach:
    world: World
    rings: Rings
    nodes: Callable[[Device], Node]
    timestamps: TimestampSource
    fanout: Fanout
    settings: Settings
    write_quorum: Callable[[int], WriteQuorum]

    def replicas(self, ring: Ring, path: Path) -> Replicas:
        partition = ring.partition(path)
        return Replicas(ring, partition, [self.nodes(device) for device in ring.primaries(partition)])

    async def step_aside(self, attempt: int) -> None:
        """Wait for a while that is drawn by lot, longer from attempt to attempt: of many writers of one key, some get through."""
        await trio.sleep(self.world.rng.random() * self.settings.aside_s * 2**attempt)

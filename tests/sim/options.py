"""Options: what a run's cluster is made of.  Mutants put their fakes in here; the seed's script sets the rest (run.py)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from ring.service.agent import Horizons
from ring.service.gate import Gate
from ring.service.horizon import next_horizons
from ring.service.overlap import Overlap
from ring.service.voters import Voters
from ring.world.interface import World
from storage.client.node import Node
from storage.client.payer import RowPayer
from storage.client.quorum import WriteQuorum
from storage.client.reach import Settings
from storage.client.trust import Trust
from storage.container.reclaimer import BookReclaimer
from storage.container.replicator import BookReplicator
from storage.container.sharder import Limits, Sharder
from storage.container.updater import ContainerUpdater
from storage.erasure.interface import Coding
from storage.object.compaction import Compactor
from storage.object.reclaimer import ObjectReclaimer
from storage.object.reconstructor import Reconstructor
from storage.object.replicator import ObjectReplicator
from storage.object.store import ObjectStore
from storage.rows.books import Books
from tests.sim.script import Traits

SETTINGS = Settings(  # impatient, so that a short run sees much; small, so that bodies of a few KiB are large ones
    read_timeout_s=2.0,
    write_timeout_s=4.0,
    stall_s=2.0,
    pack_cut_bytes=4096,
    chunk_bytes=4096,
    offload_bytes=1 << 30,
    container_cache_s=60.0,
)

SHARDS = Limits(rows=1, join_after_s=5.0, patience_s=1.0, sums_s=2.0, step_s=0.5, interval_s=8.0)  # two names are too many


@dataclass
class Options:
    """What a run is made of; mutants change some of it."""

    members: int = 7
    in_first_ring: int = 5
    traits: Traits = field(default_factory=Traits)
    door: bool = False  # clients come over HTTP
    control: bool = False  # control state is the production store, on the first machine
    wire: bool = False  # members talk over the node protocol's real bytes, and not by DirectNode
    settings: Settings = SETTINGS
    write_quorum: Callable[[Voters], WriteQuorum] = WriteQuorum
    wrap_node: Callable[[Node], Node] = lambda node: node  # how a facade and the workers see nodes
    see_ring: Callable[[Overlap], Overlap] = lambda overlap: overlap  # how a front door sees one
    ignores_sync: bool = False
    world: Callable[[World], World] = lambda world: world  # how a device's engines see theirs
    store: type[ObjectStore] = ObjectStore
    books: type[Books] = Books
    payer: type[RowPayer] = RowPayer
    replicator: type[ObjectReplicator] = ObjectReplicator
    book_replicator: type[BookReplicator] = BookReplicator
    container_updater: type[ContainerUpdater] = ContainerUpdater
    compactor: type[Compactor] = Compactor
    trust: type[Trust] = Trust
    gate: Callable[[Gate], Gate] = lambda gate: gate  # how a device sees that of its process
    formats_anything: bool = False  # an operator who takes a device without a label for a new one
    waits_for: Callable[[str, Overlap, set[int]], bool] | None = None  # in place of the agent's rule
    reclaim_age_s: float = 0.0  # tombstones older than that go; 0: they stay
    horizons: Horizons = next_horizons  # the agent's rule
    reclaimer: type[ObjectReclaimer] = ObjectReclaimer
    book_reclaimer: type[BookReclaimer] = BookReclaimer
    shards: Limits | None = None  # listings larger than that are cut; None: they stay whole
    sharder: type[Sharder] = Sharder
    coded: Coding | None = None  # how the objects of policy 1 are coded; None: there is no such policy
    reconstructor: type[Reconstructor] = Reconstructor

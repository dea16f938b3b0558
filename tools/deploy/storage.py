"""The storage of a worker: its rings and devices, served to the machine's other workers, and all of the cloud's as one Storage.

All devices of a worker share one socket, so that the questions of one wakeup to one worker travel in one message.  The first worker
brings new rings into force; the others read what it writes.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec
import trio

from ring.daemon.log import Log
from ring.errors import Unavailable
from ring.kv.interface import KV
from ring.kv.local import FILE as LOG_FILE
from ring.kv.local import LOGS_MAX
from ring.names import NameHasher
from ring.policy import Policies
from ring.service.agent import AgentSettings, Confirmations, RingAgent, follow_folder
from ring.service.follow import Renewal
from ring.service.horizon import closed_at
from ring.service.keeper import Keeper
from ring.service.register import Register
from ring.timestamp import TimestampSource
from ring.world.interface import Disk, UnixAddress, World
from storage.client.cluster import ClusterStorage
from storage.client.reach import Rings
from storage.client.server import NodeServer
from storage.object.device import LABEL_PATH
from storage.object.health import Reserve
from tools.deploy.beside import Beside
from tools.deploy.devices import Devices
from tools.deploy.layout import CloudRecord, HashSecrets, Layout, read_secret
from tools.deploy.policies import policies_of

HORIZON_STEPS = 28  # in the time that tombstones are kept: each is an edition, and a walk over all that every device holds
LOG_FOLDER = "kv"  # of control state, in a device's root


@dataclass(slots=True)
class StorageRoom:
    client: ClusterStorage
    rings: Rings
    timestamps: TimestampSource
    keeper: Keeper
    confirmations: Confirmations
    devices: Devices
    policies: Policies
    kv: KV
    cluster_id: str


async def control_disks(beside: Beside, record: CloudRecord) -> list[Disk]:
    """Where the logs of control state are: on the first devices.

    Unavailable when no log is there and devices are missing: then the disks that hold them are not mounted, and a control state
    that begins anew would have forgotten every user and bucket."""
    disks = [await beside.open(number) for number in range(min(LOGS_MAX, record.devices))]
    if any([await _is_there(disk, f"{LOG_FOLDER}/{LOG_FILE}") for disk in disks]):
        return disks
    missing = [disk.root for disk in disks if not await _is_there(disk, LABEL_PATH)]
    if missing:
        raise Unavailable(f"no control-state log is there, and {missing[0]} is not a device", hint="are its disks mounted?")
    return disks


async def _is_there(disk: Disk, path: str) -> bool:
    try:
        return await disk.info(path) is not None
    except OSError:
        return False


def load_hasher(layout: Layout) -> NameHasher:
    secrets = msgspec.json.decode(read_secret(layout.secrets / "hash.json"), type=HashSecrets)
    return NameHasher(bytes.fromhex(secrets.prefix), bytes.fromhex(secrets.suffix))


async def start_storage(
    nursery: trio.Nursery,
    world: World,
    layout: Layout,
    record: CloudRecord,
    log: Log,
    kv: KV,
    *,
    worker: int,
    workers: int,
    reserve: Reserve,
    reclaim_age_s: float,
) -> StorageRoom:
    """Open this worker's devices and serve them.  The other workers are asked when they are needed; they may start later."""
    hasher = load_hasher(layout)
    secret = read_secret(layout.secrets / "cluster.key")
    first = worker == 0  # the one that writes the machine's rings
    keeper = await _load_rings(world, layout, record, hasher, writes=first)
    devices = Devices(nursery, world, layout, record, hasher, secret, keeper, log, worker=worker, workers=workers, reserve=reserve)
    await devices.bring_up()
    timestamps = TimestampSource(world.clock)
    rings = Rings.of(keeper.overlaps)
    keeper.tell(rings.take)
    keeper.tell(lambda overlaps: timestamps.stay_above(closed_at(overlaps)))
    policies = policies_of(record)
    renew = Renewal(keeper, reads=not first)
    client = ClusterStorage(world, nursery, rings, devices.node_of, timestamps, policies=policies, renew=renew)
    register = Register(kv)
    confirmations = Confirmations(keeper, register)

    def note(event: str, detail: str) -> None:
        log.info(event, detail=detail)

    if first:
        published = world.open_disk(str(layout.published))
        settings = AgentSettings(horizon_step_s=reclaim_age_s / HORIZON_STEPS)
        nursery.start_soon(RingAgent(world, keeper, register, hasher, published=published, settings=settings, note=note).run)
    else:
        nursery.start_soon(follow_folder, keeper, note)
    nursery.start_soon(confirmations.run)
    nursery.start_soon(devices.follow)
    listener = await world.net.listen(UnixAddress(layout.node_socket(worker)))
    server = NodeServer(world, devices.served, secret, rings=keeper, ring_version=devices.edition, fillers=devices.fillers)
    await nursery.start(server.serve, listener)
    return StorageRoom(client, rings, timestamps, keeper, confirmations, devices, policies, kv, record.cluster_id)


async def _load_rings(world: World, layout: Layout, record: CloudRecord, hasher: NameHasher, *, writes: bool) -> Keeper:
    """Those in force; at the very first start, those that the cloud was made with."""
    disk = world.open_disk(str(layout.rings))
    for folder in (layout.in_force, layout.published):
        await disk.make_dirs(folder.name)
    keeper = Keeper(world, world.open_disk(str(layout.in_force)), hasher, writes=writes)

    async def first() -> dict[str, bytes]:
        return {name: await disk.read_file(f"{name}.ring") for name in record.rings}

    await keeper.load(first)
    return keeper

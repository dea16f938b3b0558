"""The rooms of a worker, put together: storage, identity, front door, block gateway, compute."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

import trio

from blockgw.api.app import make_api as make_volume_api
from blockgw.client.local import LocalVolumes
from blockgw.client.owner import Owner
from blockgw.images.store import ImageStore
from blockgw.iscsi.chap import Secret
from blockgw.iscsi.login import Access as TargetAccess
from blockgw.target.server import TargetServer
from blockgw.target.target import Target
from blockgw.volume.agent import VolumeAgent
from blockgw.volume.records import iqn
from compute.hypervisor.interface import Hypervisor
from compute.images.agent import ImageAgent
from compute.images.api import make_api as make_image_api
from compute.images.records import IMAGES
from compute.images.store import ImageRecords
from compute.servers.agent import ComputeAgent
from compute.servers.api import make_api as make_compute_api
from compute.servers.records import SERVERS
from compute.servers.store import ServerRecords
from identity.bootstrap import FirstUser, ServiceEntry, bootstrap
from identity.server import IdentityRoom, start_identity
from proxy.app import FrontDoor, FrontDoorConfig, make_app
from proxy.client.objects import ObjectsClient
from proxy.gates.limits import Limits
from ring.daemon.log import Log
from ring.daemon.yielding import Yielding
from ring.kv.interface import KV
from ring.kv.view import View
from ring.wire.message import Handler
from ring.world.interface import World
from tools.deploy.beside import Beside
from tools.deploy.clients import Endpoints
from tools.deploy.layout import Admin, Layout, read_secret
from tools.deploy.settings import Settings
from tools.deploy.storage import StorageRoom
from tools.deploy.supervisor import WorkerSpec
from tools.deploy.watched_device import WatchedDevice


@dataclass(slots=True)
class Rooms:
    identity: IdentityRoom
    objects: FrontDoor
    images: Handler
    volumes: Handler
    compute: Handler
    target: TargetServer


def catalog(endpoints: Endpoints) -> dict[str, ServiceEntry]:
    """The services of the cloud, by the ids they have in it."""
    control = endpoints.control
    return {
        "0" * 31 + "1": ServiceEntry("identity", "keystone", endpoints.auth, "Identity"),
        "0" * 31 + "2": ServiceEntry("object-store", "swift", f"{endpoints.objects}/v1/AUTH_%(project_id)s", "Object storage"),
        "0" * 31 + "3": ServiceEntry("image", "glance", f"{control}/image", "Images"),
        "0" * 31 + "4": ServiceEntry("block-storage", "cinder", f"{control}/volume/v3/%(project_id)s", "Volumes"),
        "0" * 31 + "5": ServiceEntry("compute", "nova", f"{control}/compute/v2.1", "Servers"),
        "0" * 31 + "6": ServiceEntry("s3", "s3", endpoints.objects, "Object storage, S3"),
    }


async def make_rooms(
    nursery: trio.Nursery,
    world: World,
    spec: WorkerSpec,
    layout: Layout,
    endpoints: Endpoints,
    admin: Admin,
    kv: KV,
    storage: StorageRoom,
    hypervisor: Hypervisor,
    settings: Settings,
    log: Log,
    yielding: Yielding,
) -> Rooms:
    """Everything runs in ``nursery``; the first worker also makes the first state of identity."""

    def note(event: str, detail: str) -> None:
        log.info(event, detail=detail)

    identity = await start_identity(
        nursery,
        world,
        kv,
        root_key=read_secret(layout.secrets / "root.key"),
        public_url=f"{endpoints.control}/identity",
        token_ttl_s=settings.identity.token_ttl_s,
    )
    if spec.worker == 0:
        first = FirstUser(admin.user, admin.password, admin.project, admin.access_key, admin.secret_key)
        await bootstrap(world, identity.store, identity.login, identity.sealer, first=first, services=catalog(endpoints))
    front = settings.objects
    policies = storage.policies
    config = FrontDoorConfig(
        limits=Limits(object_bytes_max=front.object_bytes_max),
        memory_bytes=front.memory_bytes,
        s3_hosts=front.s3_hosts,
        s3_region=front.s3_region,
        policies=tuple(policy.name for policy in policies),
        default_policy=policies.default.index,
    )
    objects = make_app(storage.client, identity.client, kv, world, config)
    await nursery.start(objects.run)
    reader = ObjectsClient(storage.client, kv, world.clock, claims=objects.claims)
    images = ImageStore(world, storage.client, reader, kv)
    gateway_view = View(kv, "blockgw/")
    image_records = ImageRecords(world, kv, View(kv, IMAGES))
    server_records = ServerRecords(world, kv, View(kv, SERVERS))
    for view in (gateway_view, image_records.view, server_records.view):
        await nursery.start(view.run)
    volumes = LocalVolumes(world, kv, gateway_view, images, identity.sealer, portal=endpoints.iscsi)
    me = Owner(spec.cloud, spec.worker, spec.incarnation)
    beside = Beside(world, layout, storage.cluster_id)
    log_disks = [await beside.open(number) for number in sorted(storage.devices.nodes)]
    nursery.start_soon(beside.keep)
    agent = VolumeAgent(
        kv,
        gateway_view,
        storage.client,
        images,
        identity.sealer,
        log_disks,
        me,
        workers=spec.workers,
        log=note,
    )

    async def lookup(name: str) -> Target | None:
        served = await agent.lookup(name)
        if served is None:
            return None
        access = TargetAccess(Secret(served.chap_user, served.chap_secret))
        return Target(
            iqn(served.volume_id), endpoints.iscsi, UUID(served.volume_id), WatchedDevice(served.device, yielding), access
        )

    async def discover() -> Sequence[tuple[str, str]]:
        return ()

    target = TargetServer(world, lookup, discover=discover)
    agent.drop_sessions = target.drop
    await nursery.start(agent.run)
    image_agent = ImageAgent(image_records, images, reader, me=me, workers=spec.workers, log=note)
    nursery.start_soon(image_agent.run)
    if spec.virt_type:
        compute_agent = ComputeAgent(world, kv, server_records, volumes, hypervisor, me=me, log=note)
        nursery.start_soon(compute_agent.run)
    auth = endpoints.auth
    control = endpoints.control
    known = identity.client
    return Rooms(
        identity,
        objects,
        make_image_api(world, image_records, images, reader, known, public_url=f"{control}/image", auth_url=auth, uploader=me),
        make_volume_api(volumes, known, public_url=f"{control}/volume", auth_url=auth, may_use_image=image_records.usable),
        make_compute_api(
            world,
            server_records,
            image_records,
            volumes,
            hypervisor,
            known,
            public_url=f"{control}/compute",
            auth_url=auth,
        ),
        target,
    )

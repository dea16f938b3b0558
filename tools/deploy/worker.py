"""One worker process of a cloud (``python -m tools.deploy.worker``, started by the supervisor only).

It owns the devices and volumes whose number falls to it, accepts on the sockets that all workers share, and ends when its standard
input closes (the main process is gone: at once, as in a crash) or on SIGTERM (in order: requests finish, volumes are destaged,
tables committed).  Worker 0 also owns the control state and serves it to the others.
"""

from __future__ import annotations

import gc
import os
import resource
import signal
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from socket import socket
from typing import cast

import msgspec
import trio

from compute.hypervisor.interface import Hypervisor
from ring.daemon.health import Check, health_handler, metrics_handler
from ring.daemon.log import Level, Log
from ring.daemon.metrics import Registry
from ring.daemon.requests import RequestLog
from ring.daemon.runner import Roster
from ring.daemon.yielding import Yielding, watched
from ring.errors import RingfortError, Unavailable
from ring.kv import server as kv_server
from ring.kv.interface import KV
from ring.kv.local import LocalStore
from ring.kv.remote import RemoteKV
from ring.wire.client import Client, Reply
from ring.wire.message import Handler, Headers, Request, Response
from ring.wire.router import Router
from ring.wire.server import serve
from ring.world.interface import UnixAddress, World
from ring.world.real import make_world
from ring.world.real.net import listener_from_socket
from tools.deploy import recon
from tools.deploy.background import start_background
from tools.deploy.beside import Beside
from tools.deploy.clients import Endpoints
from tools.deploy.device_status import DEVICES_PATH, devices_handler, follow_devices, unwell
from tools.deploy.iscsi import Portal
from tools.deploy.layout import Admin, CloudRecord, Layout, read_secret
from tools.deploy.load import SharedSpeed
from tools.deploy.logfile import log_sink
from tools.deploy.ring_status import RINGS_PATH, rings_handler
from tools.deploy.rooms import Rooms, make_rooms
from tools.deploy.settings import Settings, load_settings
from tools.deploy.storage import LOG_FOLDER, StorageRoom, control_disks, start_storage
from tools.deploy.supervisor import WorkerSpec

LINE_BYTES_MAX = 64 << 10
GC_OBJECTS = 20_000  # requests leave next to no cycles; to look for them after every 700 objects costs 4 % of the cpu
OTHER_S = 2.0  # for another worker's answer


def main() -> int:
    line = _spec_line()
    spec = msgspec.json.decode(line, type=WorkerSpec)
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # a connection is a descriptor
    gc.set_threshold(GC_OBJECTS, 20, 50)
    return trio.run(_run, spec)


def _spec_line() -> bytes:
    """The first line of standard input, read without taking anything after it."""
    line = bytearray()
    while not line.endswith(b"\n"):
        byte = os.read(0, 1)
        if not byte or len(line) > LINE_BYTES_MAX:
            sys.exit(1)
        line += byte
    return bytes(line)


async def _run(spec: WorkerSpec) -> int:
    layout = Layout(Path(spec.root))
    record = layout.read_record()
    if record is None:
        raise RingfortError(f"{layout.root} is not a cloud")
    world = make_world()
    settings = load_settings(layout.root)
    level = Level[settings.log.level]
    log = Log(log_sink(layout.log(spec.worker)), world.clock, level=level, fields={"worker": spec.worker})
    log.info("worker starts", pid=os.getpid(), incarnation=spec.incarnation)
    worker = Worker(world, spec, layout, record, settings, log)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_end_with_parent, layout)
        await worker.run()
        nursery.cancel_scope.cancel()
    log.info("worker ends")
    return 0


async def _end_with_parent(layout: Layout) -> None:
    """Standard input closes when the main process is gone; then nothing is left to be done in order.

    DIR is still locked by this process, so what says that the cloud is ready is not another's."""
    while True:
        await trio.lowlevel.wait_readable(0)
        if not os.read(0, 4096):
            try:
                layout.ready.unlink(missing_ok=True)
            finally:
                os._exit(3)


class Worker:
    def __init__(self, world: World, spec: WorkerSpec, layout: Layout, record: CloudRecord, settings: Settings, log: Log) -> None:
        self._world = world
        self._spec = spec
        self._layout = layout
        self._record = record
        self._settings = settings
        self._log = log
        self._registry = Registry()
        yielding = Yielding(floor=settings.background.yield_floor, target=settings.background.yield_slowdown)
        self._speed = SharedSpeed(layout.speed, spec.worker, yielding)
        self._endpoints = Endpoints(spec.host, spec.object_port, spec.control_port, spec.iscsi_port)
        self._stop = trio.Event()
        self._serving = False

    async def run(self) -> None:
        """Until SIGTERM.  The nurseries end from the outside in: first clients, then the rooms, then devices, then
        control state.  What has not begun to serve has nothing to end in order."""
        async with trio.open_nursery() as nursery:
            await nursery.start(self._listen)
            await self._run()
            nursery.cancel_scope.cancel()

    async def _listen(self, *, task_status: trio.TaskStatus[None]) -> None:
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            task_status.started()
            async for _ in signals:
                self._log.info("worker stops")
                if not self._serving:
                    os._exit(0)
                self._stop.set()

    async def _run(self) -> None:
        spec = self._spec
        async with trio.open_nursery() as control:
            kv = await self._control_state(control)
            async with trio.open_nursery() as devices:
                storage = await start_storage(
                    devices,
                    self._world,
                    self._layout,
                    self._record,
                    self._log,
                    kv,
                    worker=spec.worker,
                    workers=spec.workers,
                    reserve=self._settings.devices.reserve,
                    reclaim_age_s=self._settings.background.reclaim_age_s,
                )
                async with trio.open_nursery() as inner:
                    rooms = await self._rooms(inner, kv, storage)
                    inner.start_soon(self._speed.run)
                    self._speed.show(self._registry)
                    roster = start_background(
                        inner,
                        self._world,
                        storage,
                        rooms.objects,
                        self._log,
                        self._registry,
                        rates=self._settings.background,
                        speed=self._speed.speed,
                        sweep=spec.worker == 0,
                    )
                    async with trio.open_nursery() as clients:
                        await self._serve(clients, rooms, storage, roster)
                        gc.collect()
                        gc.freeze()  # what is there by now stays: never look through it again
                        self._serving = True
                        os.write(1, b"ready\n")
                        await self._stop.wait()
                    inner.cancel_scope.cancel()
                devices.cancel_scope.cancel()
            control.cancel_scope.cancel()

    async def _control_state(self, nursery: trio.Nursery) -> KV:
        layout = self._layout
        if self._spec.worker != 0:
            remote = RemoteKV(self._world, UnixAddress(layout.kv_socket))
            await nursery.start(remote.run)
            return remote
        beside = Beside(self._world, layout, self._record.cluster_id)
        store = LocalStore(self._world, await control_disks(beside, self._record), LOG_FOLDER)
        await nursery.start(store.run)
        nursery.start_soon(beside.keep, store.leave)
        listener = await self._world.net.listen(UnixAddress(layout.kv_socket))
        await nursery.start(kv_server.serve, store, listener)
        return store

    async def _rooms(self, nursery: trio.Nursery, kv: KV, storage: StorageRoom) -> Rooms:
        layout = self._layout
        admin = msgspec.json.decode(read_secret(layout.secrets / "admin.json"), type=Admin)
        return await make_rooms(
            nursery,
            self._world,
            self._spec,
            layout,
            self._endpoints,
            admin,
            kv,
            storage,
            self._hypervisor(),
            self._settings,
            self._log,
            self._speed.yielding,
        )

    def _hypervisor(self) -> Hypervisor:
        consoles = self._world.open_disk(str(self._layout.consoles))
        if not self._spec.virt_type:
            return cast(Hypervisor, NoHypervisor())  # it answers whatever is asked
        from compute.hypervisor.libvirt import LibvirtHypervisor

        return LibvirtHypervisor(self._world, consoles, virt_type=self._spec.virt_type)

    async def _serve(self, nursery: trio.Nursery, rooms: Rooms, storage: StorageRoom, roster: Roster) -> None:
        """Begin to accept: the two public HTTP sockets, the iSCSI portal, and this worker's own socket for its numbers."""
        spec, world = self._spec, self._world
        router = Router()
        router.mount("/identity", rooms.identity.api)
        router.mount("/image", rooms.images)
        router.mount("/volume", rooms.volumes)
        router.mount("/compute", rooms.compute)
        router.add("GET", "/metrics", metrics_handler(self._registry, self._other_metrics))
        checks = self._checks(storage)
        router.add("GET", "/health", health_handler({**checks, "workers": self._other_health}))
        router.add("GET", "/", self._index)
        await self._serve_http(nursery, spec.control_fd, router, "control")
        await self._serve_http(nursery, spec.object_fd, watched(rooms.objects, self._speed.yielding), "object")
        own = Router()
        own.add("GET", "/metrics", metrics_handler(self._registry))
        own.add("GET", "/health", health_handler(checks))
        recon.add_routes(own, world, spec.worker, roster, self._speed)
        own.add("GET", RINGS_PATH, rings_handler(spec.worker, storage))
        own.add("GET", DEVICES_PATH, devices_handler(world, spec.worker, storage))
        follow_devices(self._registry, storage.devices)
        listener = await world.net.listen(UnixAddress(self._layout.worker_socket(spec.worker)))
        await nursery.start(lambda task_status: serve(world, [listener], own, stop=self._stop, task_status=task_status))
        portal = Portal(
            rooms.target,
            worker=spec.worker,
            workers=spec.workers,
            socket_of=self._layout.handoff_socket,
            log=lambda event, detail: self._log.info(event, detail=detail),
        )
        await nursery.start(self._until_stop, portal.run, spec.iscsi_fd)

    async def _serve_http(self, nursery: trio.Nursery, descriptor: int, handler: Handler, name: str) -> None:
        listener = listener_from_socket(socket(fileno=descriptor))
        # One line a request costs more than a small request: they are written at debug level, failures always.
        on_request = RequestLog(self._log, self._registry, name, level=Level.DEBUG)

        async def run(task_status: trio.TaskStatus[None]) -> None:
            await serve(self._world, [listener], handler, on_request=on_request, stop=self._stop, task_status=task_status)

        await nursery.start(run)

    async def _until_stop(self, run: Callable[..., Awaitable[None]], argument: int, *, task_status: trio.TaskStatus[None]) -> None:
        async with trio.open_nursery() as nursery:
            await nursery.start(run, argument)
            task_status.started()
            await self._stop.wait()
            nursery.cancel_scope.cancel()

    def _checks(self, storage: StorageRoom) -> dict[str, Check]:
        async def devices() -> str:
            return unwell(storage.devices.health())

        return {"devices": devices}

    async def _ask_others(self, target: str) -> dict[int, Reply | Unavailable]:
        """All other workers at once, so that one that hangs costs its own time only."""
        client = Client(self._world.net)
        found: dict[int, Reply | Unavailable] = {}

        async def ask(worker: int) -> None:
            try:
                address = UnixAddress(self._layout.worker_socket(worker))
                found[worker] = await client.call(address, "GET", target, connect_s=OTHER_S, reply_s=OTHER_S)
            except Unavailable as error:
                found[worker] = error

        async with trio.open_nursery() as nursery:
            for worker in range(self._spec.workers):
                if worker != self._spec.worker:
                    nursery.start_soon(ask, worker)
        await client.aclose()
        return dict(sorted(found.items()))

    async def _other_metrics(self) -> Sequence[str]:
        """Of the machine's other workers; one that does not answer is left out and counted as down."""
        replies = (await self._ask_others("/metrics")).values()
        texts = [reply.body.decode() for reply in replies if not isinstance(reply, Unavailable)]
        head = "# HELP ringfort_workers_down Workers of this machine that do not answer.\n# TYPE ringfort_workers_down gauge\n"
        return [*texts, f"{head}ringfort_workers_down {len(replies) - len(texts)}\n"]

    async def _other_health(self) -> str:
        wrong = []
        for worker, reply in (await self._ask_others("/health")).items():
            if isinstance(reply, Unavailable):
                wrong.append(f"worker {worker} does not answer: {reply.message}")
            elif reply.status != 200:
                checks = msgspec.json.decode(reply.body)["checks"]
                wrong += [text for text in checks.values() if text != "ok"]
        return "; ".join(wrong)

    async def _index(self, request: Request) -> Response:
        """What lives below this port."""
        control = self._endpoints.control
        names = ("identity", "image", "volume", "compute", "metrics", "health")
        body = {"ringfort": {name: f"{control}/{name}" for name in names}}
        return Response(200, Headers([("Content-Type", "application/json")]), msgspec.json.encode(body))


class NoHypervisor:
    """Where no guest can run: libvirt or QEMU is missing."""

    def __getattr__(self, name: str) -> Callable[..., Awaitable[None]]:
        async def refuse(*arguments: object) -> None:
            raise Unavailable("no guest can run on this machine: libvirt or QEMU is missing", hint="make setup")

        return refuse


if __name__ == "__main__":
    sys.exit(main())

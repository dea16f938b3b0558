"""What a worker process says of its background workers and its clients, on its own socket, and of all processes together.

``/recon`` tells, ``/recon/run?name=...`` asks a worker for a pass now.  ``gather`` asks every process for that and for what it says
of its rings, its devices and its requests; ``Cloud.problems`` says what of it an operator should look at.

Neighbours: worker (serves it), background (the Roster), asking (the sockets), ring_status and device_status (the other pages),
tools.cli.recon and tools.cli.worker (which print).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import parse_qs, quote

import msgspec
import trio

from ring.daemon.runner import Roster, State, WorkerState
from ring.errors import NotFound, Unavailable
from ring.wire.client import Client
from ring.wire.message import Headers, Request, Response
from ring.wire.router import Router
from ring.world.interface import UnixAddress, World
from storage.object.health import State as DeviceHealth
from tools.deploy.asking import ASK_S, ask, in_use, no_cloud, worker_numbers
from tools.deploy.device_status import DEVICES_PATH, DeviceState, WorkerDevices, standoffs
from tools.deploy.latency import Latency, latencies
from tools.deploy.layout import Layout
from tools.deploy.load import SharedSpeed
from tools.deploy.ring_status import RINGS_PATH, WorkerRings

RECON_PATH = "/recon"
RUN_PATH = "/recon/run"
CLOCK_MAX_S = 1.0  # by which clocks may differ
LAG_MAX_S = 3600.0  # since a replicator's last pass ended
BEHIND_MAX_S = 3600.0  # of expirers
OWED_MAX = 10_000  # rows, of one device


class WorkerRecon(msgspec.Struct, frozen=True):
    worker: int
    now: float  # its wall clock
    workers: list[WorkerState]
    speed: float  # part of its pace that clients leave to background work
    slowdown: float  # how much longer requests take than at best, as last seen
    in_flight: int  # object requests


def add_routes(router: Router, world: World, worker: int, roster: Roster, speed: SharedSpeed) -> None:
    """GET RECON_PATH, POST RUN_PATH."""

    async def recon(request: Request) -> Response:
        load = speed.yielding
        return _answer(WorkerRecon(worker, world.clock.now(), roster.states(), speed.speed(), load.slowdown, load.in_flight))

    async def run(request: Request) -> Response:
        name = parse_qs(request.query_string).get("name", [""])[0]
        try:
            runner = roster.find(name)
        except NotFound as error:
            return Response(404, Headers([("Content-Type", "text/plain")]), error.message.encode())
        before = runner.state()
        runner.begin()
        return _answer(before)

    router.add("GET", RECON_PATH, recon)
    router.add("POST", RUN_PATH, run)


def _answer(value: object) -> Response:
    return Response(200, Headers([("Content-Type", "application/json")]), msgspec.json.encode(value))


# ---- of all processes


@dataclass(frozen=True, slots=True)
class Process:
    """A worker process; None: it did not answer that."""

    recon: WorkerRecon | None = None
    rings: WorkerRings | None = None
    devices: WorkerDevices | None = None
    requests: Mapping[tuple[str, str], Latency] = field(default_factory=dict)  # by API and method, since its start
    clock_off_s: float = 0.0  # its clock against ours, as far as the time of the question tells


@dataclass(frozen=True, slots=True)
class Cloud:
    processes: Mapping[int, Process]

    @property
    def workers(self) -> list[WorkerState]:
        return sorted((one for p in self.processes.values() if p.recon for one in p.recon.workers), key=lambda one: one.name)

    @property
    def devices(self) -> list[DeviceState]:
        return sorted((one for p in self.processes.values() if p.devices for one in p.devices.devices), key=lambda one: one.id)

    @property
    def requests(self) -> Mapping[tuple[str, str], Latency]:
        found: dict[tuple[str, str], Latency] = {}
        for process in self.processes.values():
            for kind, latency in process.requests.items():
                found[kind] = found[kind] + latency if kind in found else latency
        return found

    @property
    def now(self) -> float:
        """By the clock of the first process that answered."""
        return next((process.recon.now for process in self.processes.values() if process.recon), 0.0)

    def fact(self, kind: str, what: str) -> float:
        """The sum of a fact over the workers whose names have ``kind`` in them."""
        return sum(one.progress.facts.get(what, 0) for one in self.workers if kind in one.name.partition(" ")[0])

    def problems(self) -> list[str]:
        """What is wrong, one line each."""
        return [*self._of_processes(), *self._of_rings(), *self._of_devices(), *self._of_workers()]

    def _of_processes(self) -> list[str]:
        found = []
        for number, process in self.processes.items():
            if process.recon is None or process.devices is None or process.rings is None:
                found.append(f"worker process {number} does not answer")
            elif abs(process.clock_off_s) > CLOCK_MAX_S:
                found.append(f"the clock of worker process {number} is {process.clock_off_s:+.1f} s off")
        return found

    def _of_rings(self) -> list[str]:
        editions = {process.rings.edition for process in self.processes.values() if process.rings}
        if len(editions) > 1:
            return [f"worker processes go by different editions of the rings: {', '.join(map(str, sorted(editions)))}"]
        return []

    def _of_devices(self) -> list[str]:
        found = []
        for device in self.devices:
            if device.state != DeviceHealth.IN_SERVICE.value:
                found.append(f"device d{device.id} is {device.state}: {device.reason}")
            elif device.refilling is not None:
                found.append(f"device d{device.id} is being refilled, {device.refilling.done:.0%} is done")
            if device.quarantined:
                found.append(f"device d{device.id} has put {device.quarantined} versions aside as damaged")
        return [*found, *standoffs(self.devices)]

    def _of_workers(self) -> list[str]:
        found = [*self._short(), *self._failing()]
        for one in self.workers:
            facts = one.progress.facts
            if "replicator" in one.name and one.last is not None and (lag := self.now - ended_at(one)) > LAG_MAX_S:
                found.append(f"{one.name}: its last pass ended {lag:.0f} s ago")
            if facts.get("behind_s", 0) > BEHIND_MAX_S:
                found.append(f"{one.name} is {facts['behind_s']:.0f} s behind")
            if "updater" in one.name and (one.progress.left or 0) >= OWED_MAX:
                found.append(f"{one.name}: {one.progress.left} rows are owed to listings")
        return found

    def _short(self) -> list[str]:
        """One line for all that lacks copies: each device counts what it holds.  A device that is out, or being refilled, is said
        already, and that others miss its copies follows from it."""
        found = []
        absent = any(device.state == DeviceHealth.OUT.value or device.refilling is not None for device in self.devices)
        for what, lack in (("single_partitions", "one copy"), ("short_partitions", "too few copies")):
            counts = {one.name: one.progress.facts.get(what, 0) for one in self.workers}
            names = [name for name, count in counts.items() if count]
            if names and not (absent and what == "short_partitions"):
                found.append(f"{together(names)}: {max(counts.values()):.0f} partitions have {lack} of something")
                break
        return found

    def _failing(self) -> list[str]:
        """One line for an error, whoever meets it."""
        out = [f"device {device.id} is out of service" for device in self.devices if device.state == DeviceHealth.OUT.value]
        by_error: dict[str, list[str]] = {}
        for one in self.workers:
            if one.state is State.FAILING and not any(said in one.error for said in out):
                by_error.setdefault(one.error, []).append(one.name)
        return [f"{together(names)} fail{'s' if len(names) == 1 else ''}: {error}" for error, names in by_error.items()]


def together(names: Sequence[str]) -> str:
    """Names of workers, each kind said once: ``object-replicator d0 d1, parts-sweeper``."""
    kinds: dict[str, list[str]] = {}
    for name in names:
        kind, _, device = name.partition(" ")
        kinds.setdefault(kind, []).append(device)
    return ", ".join(" ".join([kind, *filter(None, devices)]) for kind, devices in kinds.items())


def ended_at(one: WorkerState) -> float:
    """When its last pass ended, by the wall clock."""
    assert one.last is not None
    return one.last.began_at + one.last.seconds


async def gather(world: World, layout: Layout) -> Cloud:
    """All worker processes at once.  Unavailable when no cloud runs."""
    found = dict.fromkeys(worker_numbers(layout), Process())

    async def one(number: int) -> None:
        found[number] = await _process(world, layout, number)

    async with trio.open_nursery() as nursery:
        for number in found:
            nursery.start_soon(one, number)
    if not any(process.recon for process in found.values()) and not in_use(layout):
        raise no_cloud(layout)
    return Cloud(found)


async def _process(world: World, layout: Layout, number: int) -> Process:
    client = Client(world.net)
    try:
        before = world.clock.now()
        recon = await ask(client, layout, number, RECON_PATH, msgspec.json.Decoder(WorkerRecon).decode)
        if recon is None:
            return Process()
        off_s = recon.now - (before + world.clock.now()) / 2
        rings = await ask(client, layout, number, RINGS_PATH, msgspec.json.Decoder(WorkerRings).decode)
        devices = await ask(client, layout, number, DEVICES_PATH, msgspec.json.Decoder(WorkerDevices).decode)
        metrics = await ask(client, layout, number, "/metrics", bytes.decode)
        return Process(recon, rings, devices, latencies(metrics or ""), off_s)
    finally:
        await client.aclose()


async def ask_to_run(world: World, layout: Layout, process: int, name: str) -> WorkerState:
    """The state before.  Unavailable, NotFound."""
    client, address = Client(world.net), UnixAddress(layout.worker_socket(process))
    try:
        reply = await client.call(address, "POST", f"{RUN_PATH}?name={quote(name)}", connect_s=ASK_S, reply_s=ASK_S)
    finally:
        await client.aclose()
    if reply.status == 404:
        raise NotFound(f"there is no worker {name} now")
    try:
        return msgspec.json.decode(reply.body, type=WorkerState)
    except msgspec.MsgspecError as error:
        raise Unavailable(f"worker process {process} answered something else: {error}") from error

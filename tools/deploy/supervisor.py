"""The main process of a cloud: locks DIR, binds the public sockets, starts one worker per core and restarts those that die.

It serves nothing itself.  A worker's standard input is a pipe from here: its first line is the worker's spec, and when the pipe
closes (this process is gone, however it died) the worker exits.  A worker says that it is ready by a line on its standard output.
"""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import trio

from ring.errors import BadInput, Conflict, RingfortError
from ring.world.real import make_world
from tools.deploy import libvirtd
from tools.deploy.checks import check_folder
from tools.deploy.clients import Endpoints, write_client_files
from tools.deploy.create import create
from tools.deploy.layout import Admin, CloudRecord, Layout, read_secret, write_file

STOP_GRACE_S = 30.0
START_TIMEOUT_S = 120.0
RESTART_DELAYS_S = (0.0, 0.2, 1.0, 5.0)


@dataclass(frozen=True, slots=True)
class Options:
    data: Path
    devices: int | None = None  # None: as DIR has, or 4
    replicas: int | None = None  # None: as DIR has, or 3
    workers: int | None = None  # None: one per core
    object_port: int = 8080
    control_port: int = 8000
    iscsi_port: int = 3260
    bind: str = "127.0.0.1"
    public_host: str = ""  # "": ``bind``


class WorkerSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker is told.  Sockets are inherited file descriptors."""

    root: str
    cloud: str  # names this start of the cloud
    worker: int
    workers: int
    incarnation: int
    object_fd: int
    control_fd: int
    iscsi_fd: int
    host: str
    object_port: int
    control_port: int
    iscsi_port: int
    virt_type: str  # "" when no guest can run here


@dataclass(slots=True)
class _Sockets:
    objects: socket.socket
    control: socket.socket
    iscsi: socket.socket


@dataclass(slots=True)
class _Worker:
    number: int
    incarnation: int = 0
    process: trio.Process | None = None
    ready: trio.Event = field(default_factory=trio.Event)


def check_options(options: Options) -> None:
    """BadInput for numbers that cannot be."""
    devices = 4 if options.devices is None else options.devices
    replicas = 3 if options.replicas is None else options.replicas
    if devices < 1:
        raise BadInput(f"--devices {devices}: at least 1", hint="a device is a folder under DIR/devices")
    if devices > 4096:
        raise BadInput(f"--devices {devices}: at most 4096 on one machine")
    if replicas < 1:
        raise BadInput(f"--replicas {replicas}: at least 1")
    if replicas > devices and options.devices is not None:
        raise BadInput(f"--replicas {replicas} > --devices {devices}", hint="every replica needs a device of its own")
    if options.replicas is not None and options.devices is None and not options.data.exists() and replicas > devices:
        raise BadInput(f"--replicas {replicas} > --devices {devices} (the default)", hint="give --devices as well")
    if options.workers is not None and not 1 <= options.workers <= 256:
        raise BadInput(f"--workers {options.workers}: 1 to 256")
    for name, port in (("object", options.object_port), ("control", options.control_port), ("iscsi", options.iscsi_port)):
        if not 0 <= port <= 65535:
            raise BadInput(f"--{name}-port {port}: 0 to 65535")


def up(options: Options, say: Callable[[str], None]) -> int:
    """Run a cloud in the foreground until SIGTERM or SIGINT; 0.  Raises RingfortError, with nothing changed, when it
    cannot start."""
    check_options(options)
    layout = Layout(options.data.absolute())
    record = check_folder(layout)
    if record is not None:
        for name, wanted, there in (
            ("devices", options.devices, record.devices),
            ("replicas", options.replicas, record.replicas),
        ):
            if wanted not in (None, there):
                raise Conflict(f"{layout.root} has {there} {name}, not {wanted}", hint=f"leave --{name} out to resume it")
    held = _lock(layout) if layout.root.exists() else None
    sockets = _bind(options)
    return trio.run(_main, options, layout, record, held, sockets, say)


def _lock(layout: Layout) -> int:
    """An open descriptor that holds DIR's lock.  Conflict while a cloud runs there."""
    descriptor = os.open(layout.lock, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise Conflict(f"{layout.root} is in use by a running cloud", hint="stop it first, or name another --data") from error
    return descriptor


def _bind(options: Options) -> _Sockets:
    found: list[socket.socket] = []
    for name, port in (("object", options.object_port), ("control", options.control_port), ("iscsi", options.iscsi_port)):
        try:
            family, kind, _, _, address = socket.getaddrinfo(
                options.bind, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE | socket.AI_NUMERICHOST
            )[0]
        except socket.gaierror as error:
            raise BadInput(f"--bind {options.bind} is not an address", hint="for instance 127.0.0.1, or 0.0.0.0 for all") from error
        listening = socket.socket(family, kind)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind(address)
            listening.listen(1024)
        except OSError as error:
            for one in (*found, listening):
                one.close()
            if error.errno == errno.EADDRINUSE:
                raise Conflict(f"port {port} is in use on {options.bind}", hint=f"choose another with --{name}-port") from error
            raise BadInput(
                f"cannot listen on {options.bind}:{port}: {error.strerror}", hint=f"see --bind and --{name}-port"
            ) from error
        found.append(listening)
    return _Sockets(*found)


async def _main(
    options: Options, layout: Layout, record: CloudRecord | None, held: int | None, sockets: _Sockets, say: Callable[[str], None]
) -> int:
    world = make_world()
    if record is None:
        devices = 4 if options.devices is None else options.devices
        replicas = min(3, devices) if options.replicas is None else options.replicas
        if held is None:
            layout.root.mkdir(mode=0o755)
            held = _lock(layout)
        say(f"creating a cloud in {layout.root}: {devices} devices, {replicas} replicas")
        record = await create(world, layout, devices=devices, replicas=replicas)
    assert held is not None
    layout.ready.unlink(missing_ok=True)
    endpoints = Endpoints(
        options.public_host or options.bind,
        sockets.objects.getsockname()[1],
        sockets.control.getsockname()[1],
        sockets.iscsi.getsockname()[1],
    )
    try:
        libvirtd.ensure()
        virt_type = libvirtd.this_machines_virt_type()
    except (RingfortError, OSError, subprocess.SubprocessError) as error:
        say(f"no servers can be booted: {error}")
        virt_type = ""
    supervisor = Supervisor(options, layout, sockets, endpoints, held, world.entropy.uuid().hex, virt_type, say)
    return await supervisor.run()


class Supervisor:
    def __init__(
        self,
        options: Options,
        layout: Layout,
        sockets: _Sockets,
        endpoints: Endpoints,
        held: int,
        cloud: str,
        virt_type: str,
        say: Callable[[str], None],
    ) -> None:
        self._layout = layout
        self._sockets = sockets
        self._endpoints = endpoints
        self._held = held  # the lock's descriptor: workers inherit it, so that DIR stays locked while one of them lives
        self._cloud = cloud
        self._virt_type = virt_type
        self._say = say
        count = options.workers or len(os.sched_getaffinity(0))
        self._workers = [_Worker(number) for number in range(count)]
        self._stopping = False

    async def run(self) -> int:
        status = 0
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            async with trio.open_nursery() as nursery:
                for worker in self._workers:
                    nursery.start_soon(self._keep, worker)
                nursery.start_soon(self._announce)
                async for _ in signals:
                    break
                self._stopping = True
                self._layout.ready.unlink(missing_ok=True)
                self._say("stopping")
                status = await self._stop()
                nursery.cancel_scope.cancel()
        return status

    async def _announce(self) -> None:
        with trio.move_on_after(START_TIMEOUT_S) as scope:
            for worker in self._workers:
                await worker.ready.wait()
        if scope.cancelled_caught:
            self._say(f"a worker is not ready after {START_TIMEOUT_S:.0f} s: see {self._layout.logs}")
            os.kill(os.getpid(), signal.SIGTERM)
            return
        admin = msgspec.json.decode(read_secret(self._layout.secrets / "admin.json"), type=Admin)
        write_client_files(self._layout, self._endpoints, admin)
        lines = {
            "objects (S3, Swift)": self._endpoints.objects,
            "control": self._endpoints.control,
            "auth": self._endpoints.auth,
            "iscsi": self._endpoints.iscsi,
        }
        write_file(self._layout.ready, "".join(f"{name} {url}\n" for name, url in lines.items()).encode(), mode=0o644)
        self._say("ringfort is ready: " + "  ".join(f"{name} {url}" for name, url in lines.items()))

    async def _keep(self, worker: _Worker) -> None:
        """Run one worker, again and again until the cloud stops."""
        deaths = 0
        while not self._stopping:
            began = trio.current_time()
            status = await self._run_once(worker)
            if self._stop_asked():
                return
            deaths = 0 if trio.current_time() - began > 60 else deaths + 1
            delay_s = RESTART_DELAYS_S[min(deaths, len(RESTART_DELAYS_S) - 1)]
            self._say(f"worker {worker.number} ended with status {status}: starting it again in {delay_s:g} s")
            await trio.sleep(delay_s)

    def _stop_asked(self) -> bool:
        return self._stopping

    async def _run_once(self, worker: _Worker) -> int:
        worker.incarnation += 1
        sockets = self._sockets
        spec = WorkerSpec(
            root=str(self._layout.root),
            cloud=self._cloud,
            worker=worker.number,
            workers=len(self._workers),
            incarnation=worker.incarnation,
            object_fd=sockets.objects.fileno(),
            control_fd=sockets.control.fileno(),
            iscsi_fd=sockets.iscsi.fileno(),
            host=self._endpoints.host,
            object_port=self._endpoints.object_port,
            control_port=self._endpoints.control_port,
            iscsi_port=self._endpoints.iscsi_port,
            virt_type=self._virt_type,
        )
        self._layout.logs.mkdir(exist_ok=True)
        with (self._layout.logs / f"worker-{worker.number}.log").open("ab") as log:
            process = await trio.lowlevel.open_process(
                [sys.executable, "-m", "tools.deploy.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                pass_fds=(spec.object_fd, spec.control_fd, spec.iscsi_fd, self._held),
                cwd=str(Path(__file__).resolve().parents[2]),
                start_new_session=True,  # a terminal's ^C is for this process alone, which then stops them in order
            )
        worker.process = process
        assert process.stdin is not None and process.stdout is not None
        try:
            await process.stdin.send_all(msgspec.json.encode(spec) + b"\n")
            async for chunk in process.stdout:
                if b"ready" in chunk:
                    worker.ready.set()
        except trio.BrokenResourceError:
            pass  # it died before it read its spec; its status says how
        return await process.wait()

    async def _stop(self) -> int:
        processes = [worker.process for worker in self._workers if worker.process is not None]
        for process in processes:
            if process.returncode is None:
                process.terminate()
        with trio.move_on_after(STOP_GRACE_S) as scope:
            for process in processes:
                await process.wait()
        if scope.cancelled_caught:
            self._say(f"a worker did not stop within {STOP_GRACE_S:.0f} s and was killed; what it had acknowledged is safe")
            for process in processes:
                if process.returncode is None:
                    process.kill()
        return 0

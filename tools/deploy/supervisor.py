"""The main process of a cloud: locks DIR, binds the public sockets, starts one worker per core and restarts those that die.

It serves nothing itself.  A worker's standard input is a pipe from here: its first line is the worker's spec, and when the pipe
closes (this process is gone, however it died) the worker exits.  A worker says that it is ready by a line on its standard output.
DIR is locked twice: by a lock that is this process's alone, and by one that its workers inherit, so that a cloud that was killed
can be told from one that runs.
"""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import msgspec
import trio

from ring.errors import Conflict, RingfortError, Unavailable
from ring.world.interface import World
from ring.world.real import make_world
from tools.deploy import libvirtd
from tools.deploy.checks import Options, Sockets, bind, check_folder, check_options, named
from tools.deploy.clients import Endpoints, write_client_files
from tools.deploy.create import add_policies, create
from tools.deploy.layout import Admin, CloudRecord, Layout, read_secret, write_file
from tools.deploy.logfile import open_log
from tools.deploy.policies import added
from tools.deploy.settings import load_settings

STOP_GRACE_S = 30.0
START_TIMEOUT_S = 120.0
START_DEATHS_MAX = 4  # of one worker before the cloud was ready: it will never be
LEFT_OVER_S = 10.0  # for the workers of a killed main process to be gone
LIVES_S = 60.0  # a worker that lived this long is started again at once
RESTART_DELAYS_S = (0.0, 0.2, 1.0, 5.0)
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
E = TypeVar("E", bound=Exception)


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
class _Worker:
    number: int
    incarnation: int = 0
    process: trio.Process | None = None
    ready: trio.Event = field(default_factory=trio.Event)


def up(options: Options, say: Callable[[str], None]) -> int:
    """Run a cloud in the foreground until SIGTERM or SIGINT; 0.  Raises RingfortError when it cannot start; whatever can be
    known beforehand is found before anything is changed."""
    layout = Layout(options.data.absolute())
    record = check_folder(layout)
    check_options(options, record)
    load_settings(layout.root)  # a mistake in it is told here, not by a worker that dies
    held = lock(layout) if os.path.lexists(layout.lock) else None
    sockets = bind(options)
    try:
        if held is None:
            layout.root.mkdir(mode=0o755, exist_ok=True)
            held = lock(layout)
        record = layout.read_record()  # again: now nobody else makes one
        check_options(options, record)
    except OSError as error:
        sockets.close()
        raise named(layout.root, error) from error
    except RingfortError:
        sockets.close()
        raise
    asked: list[int] = []
    for number in STOP_SIGNALS:
        signal.signal(number, lambda number, _: asked.append(number))  # until they are listened to
    outcome = trio.run(_main, options, layout, record, held, sockets, say, asked)
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)  # the interpreter is on its way out: its status is that of the cloud
    if isinstance(outcome, RingfortError):
        raise outcome
    return 0


def lock(layout: Layout) -> int:
    """An open descriptor that holds DIR's locks.  Conflict while a cloud runs there."""
    try:
        descriptor = os.open(layout.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise named(layout.lock, error) from error
    deadline = time.monotonic() + LEFT_OVER_S
    try:
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)  # not inherited: free when its main process is gone
        except (BlockingIOError, PermissionError) as error:
            raise Conflict(f"{layout.root} is in use by a running cloud", hint="stop it first, or name another --data") from error
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                if time.monotonic() > deadline:
                    raise Conflict(
                        f"{layout.root} is in use by workers whose main process is gone", hint="look for tools.deploy.worker in ps"
                    ) from error
                time.sleep(0.02)
            else:
                return descriptor
    except Conflict:
        os.close(descriptor)
        raise


async def _main(
    options: Options,
    layout: Layout,
    record: CloudRecord | None,
    held: int,
    sockets: Sockets,
    say: Callable[[str], None],
    asked: Sequence[int],
) -> RingfortError | None:
    """What ended it early, or None.  ``asked``: signals that came before this."""
    outcome: RingfortError | None = None
    stop = trio.Event()

    async def listen() -> None:
        with trio.open_signal_receiver(*STOP_SIGNALS) as signals:
            if asked:
                stop.set()
            listening.set()
            async for _ in signals:  # the first one stops the cloud; it is being stopped when others come
                stop.set()

    listening = trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(listen)
        await listening.wait()
        world = make_world()
        made = (
            await _create(world, options, layout, stop, say)
            if record is None
            else await _extend(world, options, layout, record, say)
        )
        if isinstance(made, RingfortError):
            outcome = made
        elif not stop.is_set():
            endpoints = Endpoints(
                options.public_host or options.bind,
                sockets.objects.getsockname()[1],
                sockets.control.getsockname()[1],
                sockets.iscsi.getsockname()[1],
            )
            layout.make_private()
            layout.ready.unlink(missing_ok=True)
            cloud = world.entropy.uuid().hex
            nursery.start_soon(_find_libvirt, say)
            outcome = await Supervisor(options, layout, sockets, endpoints, held, cloud, say).run(stop)
        nursery.cancel_scope.cancel()
    return outcome


async def _extend(
    world: World, options: Options, layout: Layout, record: CloudRecord, say: Callable[[str], None]
) -> CloudRecord | RingfortError:
    """Raised to this program's format, with the policies that are new."""
    try:
        record = layout.raised(record)
        new = added(record, options.policies)
        if not new:
            return record
        say("adding storage policies: " + ", ".join(one.name for one in new))
        return await add_policies(world, layout, record, new)
    except OSError as error:
        return named(layout.root, error)
    except RingfortError as error:
        return error


async def _create(
    world: World, options: Options, layout: Layout, stop: trio.Event, say: Callable[[str], None]
) -> CloudRecord | RingfortError | None:
    """The first run; None when it was stopped on the way: the next one begins it anew."""
    devices, replicas = options.counts()
    say(f"creating a cloud in {layout.root}: {devices} devices, {replicas} replicas")
    made: CloudRecord | RingfortError | None = None
    async with trio.open_nursery() as nursery:

        async def make() -> None:
            nonlocal made
            try:
                made = await create(world, layout, devices=devices, replicas=replicas, policies=options.policies)
            except* OSError as errors:
                made = named(layout.root, _first(errors))
            except* RingfortError as errors:
                made = _first(errors)
            nursery.cancel_scope.cancel()

        nursery.start_soon(make)
        await stop.wait()
        nursery.cancel_scope.cancel()
    return made


def _first(errors: BaseExceptionGroup[E]) -> E:
    for error in errors.exceptions:
        return _first(error) if isinstance(error, BaseExceptionGroup) else error
    raise AssertionError("a group holds an exception")


async def _find_libvirt(say: Callable[[str], None]) -> None:
    """The cloud serves meanwhile; servers wait for it."""
    if not libvirtd.installed():
        say("no servers can be booted: libvirt or QEMU is not installed (make setup)")
        return
    try:
        await trio.to_thread.run_sync(libvirtd.ensure, abandon_on_cancel=True)
    except (RingfortError, OSError, subprocess.SubprocessError) as error:
        say(f"no servers can be booted: {error}")


class Supervisor:
    def __init__(
        self,
        options: Options,
        layout: Layout,
        sockets: Sockets,
        endpoints: Endpoints,
        held: int,
        cloud: str,
        say: Callable[[str], None],
    ) -> None:
        self._layout = layout
        self._sockets = sockets
        self._endpoints = endpoints
        self._held = held  # the locks' descriptor: workers inherit it, so that DIR stays locked while one of them lives
        self._cloud = cloud
        self._virt_type = libvirtd.this_machines_virt_type() if libvirtd.installed() else ""
        self._say = say
        count = options.workers or len(os.sched_getaffinity(0))
        self._workers = [_Worker(number) for number in range(count)]
        self._stop = trio.Event()
        self._is_ready = False
        self._failure: RingfortError | None = None

    async def run(self, stop: trio.Event) -> RingfortError | None:
        """Until ``stop``; why it could not be started, or None."""
        self._stop = stop
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._announce)
            async with trio.open_nursery() as workers:
                for worker in self._workers:
                    workers.start_soon(self._keep, worker)
                await stop.wait()
                self._layout.ready.unlink(missing_ok=True)
                if self._failure is None:
                    self._say("stopping")
                self._terminate()
                workers.cancel_scope.deadline = trio.current_time() + STOP_GRACE_S
            nursery.cancel_scope.cancel()
        await self._kill()
        return self._failure

    def _give_up(self, failure: RingfortError) -> None:
        self._failure = self._failure or failure
        self._stop.set()

    async def _announce(self) -> None:
        with trio.move_on_after(START_TIMEOUT_S) as scope:
            for worker in self._workers:
                await worker.ready.wait()
        if scope.cancelled_caught:
            self._give_up(Unavailable(f"a worker is not ready after {START_TIMEOUT_S:.0f} s", hint=f"see {self._layout.logs}"))
        if self._stop.is_set():
            return
        try:
            admin = msgspec.json.decode(read_secret(self._layout.secrets / "admin.json"), type=Admin)
            write_client_files(self._layout, self._endpoints, admin)
            lines = {
                "objects (S3, Swift)": self._endpoints.objects,
                "control": self._endpoints.control,
                "auth": self._endpoints.auth,
                "iscsi": self._endpoints.iscsi,
            }
            write_file(self._layout.ready, "".join(f"{name} {url}\n" for name, url in lines.items()).encode(), mode=0o644)
        except RingfortError as error:
            self._give_up(error)
        except OSError as error:
            self._give_up(named(self._layout.root, error))
        else:
            self._is_ready = True
            self._say("ringfort is ready: " + "  ".join(f"{name} {url}" for name, url in lines.items()))

    async def _keep(self, worker: _Worker) -> None:
        """Run one worker, again and again until the cloud stops."""
        deaths = 0
        while not self._stop.is_set():
            began = trio.current_time()
            status = await self._run_once(worker)
            if self._stop.is_set():
                return
            deaths = 0 if trio.current_time() - began > LIVES_S else deaths + 1
            if deaths >= START_DEATHS_MAX and not self._is_ready:
                log = self._layout.log(worker.number)
                self._give_up(Unavailable(f"worker {worker.number} does not start: {_last_line(log)}", hint=f"see {log}"))
                return
            delay_s = RESTART_DELAYS_S[min(deaths, len(RESTART_DELAYS_S)) - 1] if deaths else 0.0
            self._say(f"worker {worker.number} ended with status {status}: starting it again in {delay_s:g} s")
            with trio.move_on_after(delay_s):
                await self._stop.wait()

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
        log = open_log(self._layout.log(worker.number))
        try:
            process = await trio.lowlevel.open_process(
                [sys.executable, "-m", "tools.deploy.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                pass_fds=(spec.object_fd, spec.control_fd, spec.iscsi_fd, self._held),
                cwd=str(Path(__file__).resolve().parents[2]),
                start_new_session=True,  # a terminal's ^C is for this process alone, which then stops them in order
            )
        finally:
            os.close(log)
        worker.process = process
        if self._stop.is_set():
            process.terminate()
        assert process.stdin is not None and process.stdout is not None
        try:
            await process.stdin.send_all(msgspec.json.encode(spec) + b"\n")
            async for chunk in process.stdout:
                if b"ready" in chunk:
                    worker.ready.set()
        except trio.BrokenResourceError:
            pass  # it died before it read its spec; its status says how
        finally:
            await process.stdout.aclose()
        status = await process.wait()
        await process.stdin.aclose()
        return status

    def _running(self) -> list[trio.Process]:
        return [worker.process for worker in self._workers if worker.process is not None and worker.process.poll() is None]

    def _terminate(self) -> None:
        for process in self._running():
            process.terminate()

    async def _kill(self) -> None:
        """Those that did not end in time."""
        left = self._running()
        if left:
            self._say(f"a worker did not stop within {STOP_GRACE_S:.0f} s and was killed; what it had acknowledged is safe")
        for process in left:
            process.kill()
            await process.wait()


def _last_line(log: Path) -> str:
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 4096))
        lines = [line.strip(" |+-") for line in file.read().decode(errors="replace").split("\n")]  # groups are framed
    return next((line for line in reversed(lines) if line), "it said nothing")

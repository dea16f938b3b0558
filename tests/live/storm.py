"""A storm: a cloud of real processes on small disks, clients, and faults for a minute; then rest, and the simulator's checks.

    python -m tests.live.storm --seed 7 [--seconds 60] [--folder DIR]

The schedule of faults and what clients ask for follow from the seed; how they meet does not.  Runs in a cell (cell.py), so that
nothing stays behind.  Exit status 0: every promise was kept; 1: the last lines say which one was not.

Neighbours: plan.py (which faults when), disks.py (disks), load.py (clients), rest.py (checks).
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import msgspec
import trio

from ring.world.real import make_world
from tests.live import rest
from tests.live.cell import Mounts, end_with_parent, find_cell, hide_daemons, start
from tests.live.conftest import quick_folder
from tests.live.disks import POSSIBLE, Disk, look_beneath, make_disks
from tests.live.door import Dialect, Door, Keys
from tests.live.load import CONTAINERS, Load, Log
from tests.live.plan import OF_DISKS, Deed, Fault, make_plan
from tools.deploy.create import create
from tools.deploy.layout import Layout
from tools.deploy.session import CloudClient, CloudFailed, RunningCloud

DEVICES, REPLICAS, WORKERS = 5, 3, 3
PAUSE_S = 0.03
HEALTHY_S = 75.0  # a device that failed several times is let back after a minute
LET_GO_S = 3.0
REST_S = 240.0  # repair goes round every half minute, and once more when something was in its way
SETTINGS = "[background]\nrepair_items_per_s = 4000.0\n"
FAILED = (CloudFailed, httpx.HTTPError, OSError)


class Report(msgspec.Struct):
    """The last line of the output."""

    seed: int
    mounts: str
    violations: list[str] = []
    counts: dict[str, int] = {}
    phases_s: dict[str, float] = {}


@dataclass
class Storm:
    seed: int
    seconds: float
    folder: Path
    mounts: Mounts
    log: Log = field(default_factory=Log)
    report: Report = field(init=False)
    disks: list[Disk] = field(default_factory=list)
    cloud: RunningCloud | None = None
    _began: float = 0.0
    _ports: dict[str, int] = field(default_factory=lambda: dict(zip(("object", "control"), free_ports(2), strict=True)))
    _struck: dict[int, Deed] = field(default_factory=dict)  # disks, by device
    _frozen: list[int] = field(default_factory=list)  # pids

    def __post_init__(self) -> None:
        self.report = Report(self.seed, self.mounts.value)

    @property
    def layout(self) -> Layout:
        return Layout(self.folder / "cloud")

    @property
    def cloud_log(self) -> Path:
        return self.folder / "cloud.log"

    # ---- the parts of it

    def run(self) -> Report:
        mark = time.monotonic()

        def phase(name: str) -> None:
            nonlocal mark
            self.report.phases_s[name] = round(time.monotonic() - mark, 1)
            mark = time.monotonic()

        self._build()
        self._start()
        with closing(CloudClient(self.layout.root)) as client:
            keys = Keys.of(client)
        self._make_containers(keys)
        phase("build")
        load = Load(self.log, keys, self.seed, PAUSE_S)
        load.start()
        try:
            self._weather()
        finally:
            load.stop()
        phase("storm")
        found = self._calm()
        phase("healthy again")
        if not found:
            found += rest.settle(lambda: rest.read_all(self.log, keys), HEALTHY_S)
            phase("reads")
            found += self._restart()
            found += rest.settle(rest.Totals(self.log, keys).look, REST_S)
            phase("listings and totals")
            found += rest.settle(lambda: rest.replicas(self.layout, WORKERS), REST_S)
            phase("replicas")
            found += rest.read_all(self.log, keys)
        found += self.log.violations + rest.histories(self.log)
        if self.disks:
            found += rest.beneath(self.folder / "disks" / "beneath")
        found += self._stop()
        found += rest.logs(self.layout, self.cloud_log)
        phase("end")
        self.report.violations = list(dict.fromkeys(found))
        self.report.counts = rest.counts(self.log)
        return self.report

    def _build(self) -> None:
        layout = self.layout
        trio.run(lambda: create(make_world(), layout, devices=DEVICES, replicas=REPLICAS))
        (layout.root / "ringfort.toml").write_text(SETTINGS)
        if self.mounts is not Mounts.NONE:
            hide_daemons()
            room = self.folder / "disks"
            room.mkdir()
            self.disks = make_disks([layout.device(number) for number in range(DEVICES)], room, self.mounts)
            look_beneath(layout.root / "devices", room)

    def _make_containers(self, keys: Keys) -> None:
        door = Door(keys)
        for container in CONTAINERS:
            door.ask(Dialect.SWIFT, "PUT", container)
        door.close()

    def _weather(self) -> None:
        """The plan, in its time: beginnings and ends of faults."""
        plan = make_plan(self.seed, self.seconds, workers=WORKERS, devices=DEVICES, disk_deeds=POSSIBLE[self.mounts])
        events = [(fault.at_s, 0, fault) for fault in plan] + [(fault.until_s, 1, fault) for fault in plan if fault.lasts_s]
        self._began = time.monotonic()
        for at_s, end, fault in sorted(events, key=lambda event: event[:2]):
            while (wait_s := self._began + at_s - time.monotonic()) > 0:
                time.sleep(min(wait_s, 0.5))
                for number, deed in self._struck.items():
                    if deed is Deed.FILL:
                        self.disks[number].fill()  # what was given back meanwhile
            if end:
                self._end(fault)
            else:
                self.say(str(fault))
                self._begin(fault)
        time.sleep(max(0.0, self._began + self.seconds - time.monotonic()))

    def _begin(self, fault: Fault) -> None:
        match fault.deed:
            case Deed.KILL_WORKER:
                self._signal(fault.target, signal.SIGKILL)
            case Deed.FREEZE:
                pid = self._signal(fault.target, signal.SIGSTOP)
                if pid:
                    self._frozen.append(pid)
            case Deed.KILL_MAIN:
                self._cloud.process.kill()
                self._cloud.process.wait()
                self._thaw()  # whoever is frozen still has the folder's lock
                self._start()
            case Deed.KILL_ALL:
                self._cloud.kill()
                self._start()
            case _:
                self._strike(fault)

    def _strike(self, fault: Fault) -> None:
        disk = self.disks[fault.target]
        self._struck[fault.target] = fault.deed
        match fault.deed:
            case Deed.FILL:
                disk.fill()
            case Deed.UNMOUNT:
                disk.unmount()
            case Deed.READ_ONLY:
                disk.read_only()
            case Deed.PULL:
                disk.pull()

    def _end(self, fault: Fault) -> None:
        if fault.deed is Deed.FREEZE:
            self._thaw()
        elif fault.deed in OF_DISKS:
            self._repair(fault.target)

    def _thaw(self) -> None:
        while self._frozen:
            with suppress(ProcessLookupError):
                os.kill(self._frozen.pop(), signal.SIGCONT)

    def _repair(self, number: int) -> None:
        """As an operator does it: what is full is freed, what is gone is put back.  The device returns by itself."""
        disk, deed = self.disks[number], self._struck.pop(number)
        self.say(f"disk {number} is put right")
        match deed:
            case Deed.FILL:
                disk.free()
            case Deed.UNMOUNT:
                disk.mount_again()
            case Deed.READ_ONLY | Deed.PULL:
                self._let_go(disk)
                disk.detach()
                disk.attach()

    def _let_go(self, disk: Disk) -> None:
        """Nobody has anything of it open any more: who does not see by itself that it is useless is killed."""
        disk.hide()
        deadline = time.monotonic() + LET_GO_S
        while disk.holders() and time.monotonic() < deadline:
            time.sleep(0.1)
        for pid in disk.holders():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def _calm(self) -> list[str]:
        """All faults end; is the cloud whole again, by itself?"""
        self._thaw()
        for number in list(self._struck):
            self._repair(number)
        return rest.settle(self._health, HEALTHY_S)

    def _health(self) -> list[str]:
        try:
            reply = httpx.get(f"http://127.0.0.1:{self._ports['control']}/health", timeout=10.0, trust_env=False)
        except httpx.HTTPError as error:
            return [f"not healthy {HEALTHY_S:.0f} s after the storm: {type(error).__name__}: {error}"]
        return [] if reply.status_code == 200 else [f"not healthy {HEALTHY_S:.0f} s after the storm: {reply.text}"]

    # ---- the cloud's processes

    @property
    def _cloud(self) -> RunningCloud:
        assert self.cloud is not None
        return self.cloud

    def _start(self) -> None:
        ports = [f"--{name}-port={port}" for name, port in self._ports.items()]
        self.cloud = RunningCloud.start(self.layout.root, "--workers", str(WORKERS), *ports, log=self.cloud_log)

    def _restart(self) -> list[str]:
        found = self._stop()
        self._start()
        return found

    def _stop(self) -> list[str]:
        try:
            status = self._cloud.stop()
        except CloudFailed as error:
            return [str(error)]
        return [f"the cloud stopped with status {status}"] if status else []

    def _signal(self, worker: int, number: signal.Signals) -> int:
        """To a worker; its pid, 0 when it does not run just now."""
        for pid in self._cloud.workers():
            with suppress(OSError):
                if os.readlink(f"/proc/{pid}/fd/2") == str(self.layout.log(worker)):
                    os.kill(pid, number)
                    return pid
        return 0

    def clean(self) -> None:
        """Whatever happened: nothing of it runs on."""
        self._thaw()
        if self.cloud is not None and self.cloud.process.poll() is None:
            self.cloud.kill()

    def say(self, line: str) -> None:
        print(line, flush=True)


def free_ports(count: int) -> list[int]:
    """Ports of loopback that nobody has, below those that the system gives out: they stay ours while the cloud is down."""
    found: list[int] = []
    numbers = random.SystemRandom()
    while len(found) < count:
        port = numbers.randrange(20_000, 30_000)
        with closing(socket.socket()) as one, suppress(OSError):
            one.bind(("127.0.0.1", port))
            found.append(port)
    return found


def command(seed: int, seconds: float) -> str:
    """What plays the same schedule."""
    return f".venv/bin/python -m tests.live.storm --seed {seed} --seconds {seconds:g}"


def play(
    seed: int,
    seconds: float,
    folder: Path,
    *,
    timeout_s: float,
    most: Mounts = Mounts.EXT4,
    tell: Callable[[str], None] = lambda line: None,
) -> Report:
    """In a cell; ``tell`` hears each line that is said on the way.  RuntimeError when there is no report in the end."""
    mounts, cell = find_cell(most)
    words = ["--seed", str(seed), "--seconds", str(seconds), "--inside", mounts.value, "--folder", str(folder)]
    with start("tests.live.storm", words, cell) as process:
        said: list[str] = []
        killer = threading.Timer(timeout_s, process.kill)
        killer.start()
        try:
            assert process.stdout is not None
            for line in process.stdout:
                said.append(line)
                tell(line.rstrip())
        finally:
            killer.cancel()
            process.kill()  # nothing, if it has ended
    try:
        return msgspec.json.decode(said[-1], type=Report)
    except (IndexError, msgspec.DecodeError) as error:
        raise RuntimeError(f"the storm ended without a report:\n{''.join(said)[-5000:]}") from error


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="a cloud of real processes in a storm of faults")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--folder", type=Path, help="an empty folder for the cloud, which is kept")
    parser.add_argument("--mounts", choices=[kind.value for kind in Mounts], default="ext4", help="as where no better is permitted")
    parser.add_argument("--inside", choices=[kind.value for kind in Mounts], help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.inside is None:
        folder = Path(tempfile.mkdtemp(prefix="ringfort-storm-", dir=quick_folder()))
        try:
            report = play(
                options.seed,
                options.seconds,
                options.folder or folder,
                timeout_s=options.seconds + 900,
                most=Mounts(options.mounts),
                tell=lambda line: print(line, flush=True),
            )
        finally:
            shutil.rmtree(folder)
        return 1 if report.violations else 0
    options.folder.mkdir(exist_ok=True)
    storm = Storm(options.seed, options.seconds, options.folder, Mounts(options.inside))
    end_with_parent(storm.clean)
    try:
        report = storm.run()
    finally:
        storm.clean()
    for violation in report.violations:
        print(violation)
    print(msgspec.json.encode(report).decode(), flush=True)
    return 1 if report.violations else 0


if __name__ == "__main__":
    sys.exit(main())

"""What must hold of a cloud that came to rest after a storm: the simulator's checkers, fed from a real cloud.

Each check returns what is wrong, in words; ``settle`` repeats one until nothing is, or time is up.  Front doors are asked over
HTTP, replicas over the node protocol, as another worker would.  Neighbours: load.py (the client), tests.sim.checkers (promises).
"""

from __future__ import annotations

import itertools
import re
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import trio

from ring.errors import RingfortError
from ring.names import Span
from ring.service.keeper import Keeper
from ring.world.interface import UnixAddress
from ring.world.real import make_world
from storage.client.peer import Peer
from storage.client.remote import RemoteNode
from tests.live.door import Answer, Dialect, Door, Keys, NoAnswer, NotSent
from tests.live.load import CONTAINERS, RACE, Client, Log
from tests.sim import checkers
from tests.sim.history import Kind, Outcome
from tools.deploy.layout import RINGS, Layout, read_secret
from tools.deploy.storage import load_hasher

LOOK_S = 0.5
PAGE = 50
_LOGGED = re.compile(rb"time=")  # how a line of the log begins
_TROUBLE = re.compile(rb"Traceback|Exception Group|unraisable|was never awaited", re.IGNORECASE)


def settle(look: Callable[[], list[str]], timeout_s: float) -> list[str]:
    """The last thing it saw, or nothing."""
    deadline = time.monotonic() + timeout_s
    while (found := look()) and time.monotonic() < deadline:
        time.sleep(LOOK_S)
    return found


def histories(log: Log) -> list[str]:
    history = log.history
    found = checkers.acked_puts_are_readable(history)
    found += checkers.no_delete_resurrects(history)
    found += checkers.reads_see_what_was_written(history)
    found += checkers.one_register(history, lambda name: f"/{RACE}" in name)
    for (name, etag), winners in log.won.items():
        if winners > 1:
            found.append(f"{name}: {winners} writes on the condition that {etag or 'nothing'} is there were acknowledged")
    return found


def read_all(log: Log, keys: Keys) -> list[str]:
    """Every name, through both dialects, into the history; none may be unreadable."""
    found = []
    client = Client(log, keys, "rest")
    for name in sorted(log.history.by_name()):
        for dialect in Dialect:
            operation, _ = client.get(dialect, name)
            if operation.outcome is not Outcome.ACKED:
                found.append(f"cannot be read at rest: {operation}")
    client.close()
    return found


class Totals:
    """Listings against objects, and the sums of containers and of the account against listings."""

    def __init__(self, log: Log, keys: Keys) -> None:
        self._names = sorted(log.history.by_name())
        self._door = Door(keys)

    def look(self) -> list[str]:
        try:
            return self._look()
        except (NotSent, NoAnswer, _Refused) as error:
            return [f"{type(error).__name__} at rest: {error}"]

    def _look(self) -> list[str]:
        objects: dict[str, tuple[int, str]] = {}
        for name in self._names:
            answer = self._ask("HEAD", name, wanted=(200, 404))
            if answer.status == 200:
                objects[name] = int(answer.headers["content-length"]), answer.headers["etag"].strip('"')
        listed = {container: self._listing(container) for container in CONTAINERS}
        found = checkers.listings_equal_objects({name: one for rows in listed.values() for name, one in rows.items()}, objects)
        said = {container: self._sums(container, "container", "object-count", "bytes-used") for container in CONTAINERS}
        containers = {container: (count, used) for container, (count, used) in said.items()}
        count, objects_said, used = self._sums("", "account", "container-count", "object-count", "bytes-used")
        return found + checkers.totals_are_exact(listed, containers, (count, objects_said, used))

    def _listing(self, container: str) -> dict[str, tuple[int, str]]:
        found: dict[str, tuple[int, str]] = {}
        marker = ""
        while True:
            query = {"format": "json", "limit": str(PAGE), "marker": marker}
            page = msgspec.json.decode(self._ask("GET", container, query).body)
            for row in page:
                found[f"{container}/{row['name']}"] = row["bytes"], row["hash"]
            if len(page) < PAGE:
                return found
            marker = page[-1]["name"]

    def _sums(self, path: str, kind: str, *names: str) -> list[int]:
        answer = self._ask("HEAD", path, wanted=(200, 204))
        return [int(answer.headers[f"x-{kind}-{name}"]) for name in names]

    def _ask(self, method: str, path: str, query: dict[str, str] | None = None, wanted: tuple[int, ...] = (200,)) -> Answer:
        answer = self._door.ask(Dialect.SWIFT, method, path, query)
        if answer.status not in wanted:
            raise _Refused(f"{method} {path} answered {answer.status}")
        return answer


class _Refused(Exception):
    """A request that must work at rest did not."""


def replicas(layout: Layout, workers: int) -> list[str]:
    """Whether the replicas of each partition of each ring have one root, and nobody else has anything."""
    return trio.run(_replicas, layout, workers)


async def _replicas(layout: Layout, workers: int) -> list[str]:
    world = make_world()
    keeper = Keeper(world, world.open_disk(str(layout.in_force)), load_hasher(layout), writes=False)
    await keeper.reload()
    secret = read_secret(layout.secrets / "cluster.key")
    roots: dict[tuple[str, int], dict[str, bytes]] = {}
    found: list[str] = []
    async with trio.open_nursery() as nursery:
        peers = [
            Peer(world, nursery, UnixAddress(layout.node_socket(worker)), secret, ring_version=lambda: keeper.edition.number)
            for worker in range(workers)
        ]

        async def walk(kind: str, number: int) -> None:
            ring = keeper.overlaps[kind].ring
            device = next(device for device in ring.devices if device is not None and device.id == number)
            node = RemoteNode(device, peers[number % workers])
            for partition in range(ring.partition_count):
                try:
                    held = await node.digests(kind, Span(ring.part_power, partition))
                except RingfortError as error:
                    found.append(f"device {number}: {error.message}")
                    return
                primary = any(device.id == number for device in ring.primaries(partition))
                if primary:
                    roots.setdefault((kind, partition), {})[f"d{number}"] = held.root
                elif any(held.root):
                    key, _ = (await node.leaf(kind, Span(ring.part_power, partition), min(held.leaves)))[0]
                    found.append(f"{kind} partition {partition}: device {number} is no primary and still holds {key.hex()}")

        async with trio.open_nursery() as walking:
            for kind in RINGS:
                for device in keeper.overlaps[kind].ring.devices:
                    if device is not None:
                        walking.start_soon(walk, kind, device.id)
        nursery.cancel_scope.cancel()
    return found + checkers.replicas_agree(roots)


def logs(layout: Layout, cloud_log: Path) -> list[str]:
    """Lines that tell of a program's fault, not of a disk's."""
    found = []
    for path in (*sorted(layout.logs.iterdir()), cloud_log):
        lines = path.read_bytes().splitlines()
        for number, line in enumerate(lines):
            if _TROUBLE.search(line):
                said = itertools.takewhile(lambda line: not _LOGGED.match(line), lines[number:])
                shown = " / ".join(line.decode(errors="replace").strip(" |") for line in said)
                if len(shown) > 3000:  # the innermost comes last
                    shown = f"{shown[:500]} ... {shown[-2500:]}"
                found.append(f"{path.name}: {shown}")
                break
    return found


def beneath(folder: Path) -> list[str]:
    """What was written into the folders under the mounts."""
    return [f"written under the mount of {path.parent.name}: {path.name}" for path in sorted(folder.glob("*/*"))]


def counts(log: Log) -> dict[str, int]:
    """For the reader of a report, and so that a storm in which nothing worked is no success."""
    told = dict(sorted(log.outcomes.items()))
    told["names"] = len(log.history.by_name())
    told["races won"] = sum(log.won.values())
    told["acknowledged"] = sum(
        operation.outcome is Outcome.ACKED and operation.kind is not Kind.READ for operation in log.history.operations
    )
    return told

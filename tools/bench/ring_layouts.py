"""The clusters and changes that the ring benchmark plays, and what a table that came out of one is worth.

The same judge for every implementation: it looks at tables, devices and weights alone.  Pure; numpy.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ring.builder.measure import counts_of, crowding
from ring.builder.quota import targets
from ring.device import Device
from tools.bench.ring_child import PASSES_MAX

PER_SERVER = 10
Verb = list[Any]  # ["add", device], ["remove", id] or ["weight", id, weight], as ring_child takes them
Cells = NDArray[np.uint16]  # (replicas, partitions)


@dataclass(frozen=True, slots=True)
class Scene:
    """A cluster, and what is done to it; the first build when nothing is."""

    name: str
    cluster: str
    zones: int
    servers: int  # in each zone
    changes: Sequence[Verb] = ()

    @property
    def passes_max(self) -> int:
        return PASSES_MAX if self.changes else 1

    def devices(self) -> list[dict[str, Any]]:
        """Before the change, by id."""
        return [d for zone in range(1, self.zones + 1) for server in range(self.servers) for d in _server(zone, server)]

    def devices_after(self) -> list[Device]:
        """Those that are removed are there without weight."""
        devices = [Device(device_id, **device) for device_id, device in enumerate(self.devices())]
        for verb, *arguments in self.changes:
            if verb == "add":
                devices.append(Device(len(devices), **arguments[0]))
            else:
                device_id, weight = arguments[0], arguments[1] if verb == "weight" else 0.0
                devices[device_id] = replace(devices[device_id], weight=weight)
        return devices


def _server(zone: int, server: int) -> list[dict[str, Any]]:
    names = (f"d{number}" for number in range(PER_SERVER))
    ip = f"10.0.{zone}.{server}"
    return [{"region": 1, "zone": zone, "ip": ip, "port": 6200, "name": name, "weight": 100.0} for name in names]


def _added(zone: int, first: int, count: int) -> list[Verb]:
    return [["add", device] for server in range(first, first + count) for device in _server(zone, server)]


_REWEIGHTED = sorted(random.Random(1).sample(range(1000), 100))
FIVE = Scene("first build", "5 zones x 20 servers x 10", 5, 20)
FOUR = Scene("first build, 4 zones", "4 zones x 25 servers x 10", 4, 25)
ADD = replace(FIVE, name="add a server", changes=_added(1, 20, 1))
SCENES = (
    FIVE,
    ADD,
    replace(FIVE, name="remove a server", changes=[["remove", device_id] for device_id in range(PER_SERVER)]),
    replace(FIVE, name="one zone +60 %", changes=_added(1, 20, 12)),
    replace(FIVE, name="10 % of devices x 1.5", changes=[["weight", device_id, 150.0] for device_id in _REWEIGHTED]),
    FOUR,
    replace(FOUR, name="4 zones: one +44 %", changes=_added(1, 25, 11)),  # of nearly every partition, it must hold a replica then
    replace(FOUR, name="4 zones: remove a server", changes=[["remove", device_id] for device_id in range(PER_SERVER)]),
)


@dataclass(frozen=True, slots=True)
class Worth:
    """What a run came to.  ``moves`` by pass; ``lower_bound`` is the sum of max(0, held - quota) over the devices."""

    moves: Sequence[int]
    lower_bound: int
    balance: float
    dispersion: float
    twice: int  # partitions with two replicas on one device
    hasty: int  # times that a partition lost two replicas or more in one pass


def judge(scene: Scene, tables: Sequence[Cells | None]) -> Worth:
    """``tables``: before the first pass (None when there was none), and after each."""
    devices = scene.devices_after()
    last = tables[-1]
    assert last is not None
    rows = [last.shape[1]] * len(last)
    held = counts_of(tuple(tables[0]), len(devices)) if tables[0] is not None else np.zeros(len(devices), np.int64)
    goal = targets(devices, rows, 0.0, {device_id: int(count) for device_id, count in enumerate(held)})
    lost = [_lost(before, after) for before, after in pairwise(tables) if before is not None and after is not None]
    now = counts_of(tuple(last), len(devices))
    off = [abs(100.0 * float(now[device_id] / share - 1)) for device_id, share in goal.shares.items() if share]
    stranded = any(now[device.id] for device in devices if not device.weight)
    return Worth(
        moves=[int(count.sum()) for count in lost] if lost else [last.size],
        lower_bound=sum(max(0, int(count) - goal.quotas.get(i, 0)) for i, count in enumerate(held)) if lost else last.size,
        balance=999.99 if stranded else max(off),
        dispersion=crowding(tuple(last), devices).percent,
        twice=int((np.diff(np.sort(last, axis=0), axis=0) == 0).any(axis=0).sum()),
        hasty=sum(int((count > 1).sum()) for count in lost),
    )


def _lost(before: Cells, after: Cells) -> NDArray[np.int64]:
    """By partition: the devices that held it and do not any more."""
    return sum((~(row == after).any(axis=0) for row in before), np.zeros(before.shape[1], np.int64))

"""OpenStack Swift's builder and ring, as ring_child measures them.  Runs in the interpreter that has ``swift``, and there alone.

Passes go on until the worst device is less than 1 % off.  swift-ring-builder itself stops sooner: without --force it does not keep
a pass that changed balance and dispersion by less than 1 (swift.cli.ringbuilder), and stays 14 % off where a zone grew.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from importlib import import_module
from typing import Any

from tools.bench.ring_child import REPLICAS, Side, run


class Swift(Side):
    builder: Any
    ring: Any
    balance: float

    def __init__(self) -> None:
        # By name, as our interpreter, which checks types, has no swift.
        self.rings = import_module("swift.common.ring.ring")
        self.builders = import_module("swift.common.ring.builder")
        utils: Any = import_module("swift.common.utils")
        utils.HASH_PATH_SUFFIX = b"endcap"

    def create(self, part_power: int) -> None:
        self.builder = self.builders.RingBuilder(part_power, REPLICAS, 1)

    def load(self, path: str) -> None:
        self.builder = self.builders.RingBuilder.load(path)

    def save(self, path: str) -> None:
        self.builder.save(path)

    def add(self, device: dict[str, Any]) -> None:
        self.builder.add_dev(_dev(device))

    def remove(self, device_id: int) -> None:
        self.builder.remove_dev(device_id)

    def set_weight(self, device_id: int, weight: float) -> None:
        self.builder.set_dev_weight(device_id, weight)

    def hours_pass(self) -> None:
        self.builder.pretend_min_part_hours_passed()

    def rebalance(self, seed: int) -> bool:
        moved, self.balance, removed = self.builder.rebalance(seed=seed)
        return bool(moved or removed)

    def settled(self) -> bool:
        return self.balance < 1 and not self.builder.dispersion

    def rows(self) -> Sequence[bytes]:
        return [row.tobytes() for row in self.builder._replica2part2dev]

    def write_ring(self, path: str, part_power: int, devices: Sequence[dict[str, Any]], rows: Sequence[bytes]) -> None:
        devs = [{"id": device_id, **_dev(device)} for device_id, device in enumerate(devices)]
        self.rings.RingData([array("H", row) for row in rows], devs, 32 - part_power, version=1).save(path)

    def open_ring(self, path: str) -> None:
        self.ring = self.rings.Ring(path)

    def nodes(self, name: str) -> object:
        return self.ring.get_nodes("AUTH_test", "album", name)

    def handoffs(self, partition: int) -> Iterator[object]:
        more: Iterator[object] = self.ring.get_more_nodes(partition)
        return more


def _dev(device: dict[str, Any]) -> dict[str, Any]:
    dev = {name: device[name] for name in ("region", "zone", "ip", "port", "weight")}
    return {**dev, "device": device["name"], "meta": "", "replication_ip": device["ip"], "replication_port": device["port"]}


if __name__ == "__main__":
    run(Swift())

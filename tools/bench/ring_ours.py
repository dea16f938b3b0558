"""Ringfort's builder and ring, as ring_child measures them."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ring.builder.builder import Builder
from ring.builder.builderfile import decode_builder, encode_builder
from ring.device import Device
from ring.names import NameHasher
from ring.names import Path as Name
from ring.placement import Ring
from ring.ringfile import decode, encode
from tools.bench.ring_child import REPLICAS, Side, run

HASHER = NameHasher(b"", b"endcap")
NOW = 1_700_000_000.0


class Ours(Side):
    builder: Builder
    ring: Ring

    def create(self, part_power: int) -> None:
        self.builder = Builder.create(part_power, REPLICAS, 1)

    def load(self, path: str) -> None:
        self.builder = decode_builder(Path(path).read_bytes())

    def save(self, path: str) -> None:
        Path(path).write_bytes(encode_builder(self.builder))

    def add(self, device: dict[str, Any]) -> None:
        self.builder.add_device(**device)

    def remove(self, device_id: int) -> None:
        self.builder.remove(device_id)

    def set_weight(self, device_id: int, weight: float) -> None:
        self.builder.set_weight(device_id, weight)

    def hours_pass(self) -> None:
        self.builder.pretend_min_part_hours_passed()

    def rebalance(self, seed: int) -> bool:
        return self.builder.rebalance(seed, NOW).moves > 0

    def settled(self) -> bool:
        return False  # the pass that moves nothing is the proof

    def rows(self) -> Sequence[bytes]:
        return [row.tobytes() for row in self.builder.table]

    def write_ring(self, path: str, part_power: int, devices: Sequence[dict[str, Any]], rows: Sequence[bytes]) -> None:
        table = tuple(array("H", row) for row in rows)
        Path(path).write_bytes(encode(Ring(1, part_power, tuple(Device(i, **d) for i, d in enumerate(devices)), table, HASHER)))

    def open_ring(self, path: str) -> None:
        self.ring = decode(Path(path).read_bytes(), HASHER)

    def nodes(self, name: str) -> object:
        partition = self.ring.partition(Name("AUTH_test", "album", name))
        return partition, self.ring.primaries(partition)

    def handoffs(self, partition: int) -> Iterator[object]:
        return self.ring.handoffs(partition)


if __name__ == "__main__":
    run(Ours())

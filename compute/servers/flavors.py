"""Flavors: the one table of sizes a server may have.  Pure."""

from __future__ import annotations

from dataclasses import dataclass

from ring.errors import NotFound


@dataclass(frozen=True, slots=True)
class Flavor:
    id: str
    name: str
    vcpus: int
    memory_mib: int
    disk_gib: int  # of the root disk made from an image


FLAVORS = (
    Flavor("1", "m1.tiny", 1, 256, 1),
    Flavor("2", "m1.small", 1, 1024, 10),
    Flavor("3", "m1.medium", 2, 2048, 20),
    Flavor("4", "m1.large", 4, 4096, 40),
)


def flavor(flavor_id: str) -> Flavor:
    for one in FLAVORS:
        if one.id == flavor_id:
            return one
    raise NotFound(f"Flavor {flavor_id} could not be found.")

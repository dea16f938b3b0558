"""A device: one disk of the cluster, as the ring names it.  Pure data; ``storage`` opens it, ``builder`` weighs it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Device:
    id: int
    region: int
    zone: int
    ip: str
    port: int  # of the server on this ip that serves the device between machines; 0: this machine only
    name: str  # folder of the device below its node's devices folder
    weight: float
    meta: str = ""

    def __str__(self) -> str:
        return f"d{self.id}r{self.region}z{self.zone}-{self.ip}:{self.port}/{self.name}"

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
    replication_ip: str = ""  # where the device is reached by background work; ``ip`` and ``port`` when not given
    replication_port: int = -1

    def __post_init__(self) -> None:
        if not self.replication_ip:
            object.__setattr__(self, "replication_ip", self.ip)
        if self.replication_port < 0:
            object.__setattr__(self, "replication_port", self.port)

    @property
    def address(self) -> str:
        return _address(self.ip, self.port)

    @property
    def replication_address(self) -> str:
        return _address(self.replication_ip, self.replication_port)

    def __str__(self) -> str:
        return f"d{self.id}r{self.region}z{self.zone}-{self.address}/{self.name}"


def _address(ip: str, port: int) -> str:
    """An IPv6 address stands in brackets."""
    return f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}"

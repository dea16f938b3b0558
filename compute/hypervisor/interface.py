"""Hypervisor: what the compute agent asks of the machine.  Every call may be repeated; none waits for a guest to boot."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Protocol
from uuid import UUID

from blockgw.client.interface import Connection


class GuestState(Enum):
    ABSENT = "absent"
    RUNNING = "running"
    PAUSED = "paused"
    SHUTOFF = "shutoff"
    CRASHED = "crashed"


@dataclass(frozen=True, slots=True)
class GuestSpec:
    id: UUID
    name: str  # shown by the hypervisor's own tools; the id decides
    vcpus: int
    memory_mib: int
    disk: Connection  # the root disk, over iSCSI


class Hypervisor(Protocol):
    """Errors: ring.errors.Unavailable when the hypervisor cannot be asked or refuses."""

    async def start(self, spec: GuestSpec) -> None:
        """Define the guest as ``spec`` says and start it; nothing when it runs already."""

    async def state(self, guest_id: UUID) -> GuestState: ...

    async def shutdown(self, guest_id: UUID) -> None:
        """Press the power button; nothing when it does not run."""

    async def destroy(self, guest_id: UUID) -> None:
        """Pull the plug; nothing when it does not run."""

    async def remove(self, guest_id: UUID) -> None:
        """Destroy it and forget it, its secrets and its console."""

    async def console(self, guest_id: UUID, length_bytes: int) -> bytes:
        """The end of what the guest wrote to its serial console; b"" when there is none."""

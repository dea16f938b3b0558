"""FakeHypervisor: guests in RAM.  ``fail_next`` makes calls raise, ``starting_s`` makes a start take its time, ``consoles`` is what
guests "wrote"."""

from __future__ import annotations

from uuid import UUID

import trio

from compute.hypervisor.interface import GuestSpec, GuestState
from ring.errors import Unavailable


class FakeHypervisor:
    """Implements compute.hypervisor.interface.Hypervisor."""

    def __init__(self) -> None:
        self.specs: dict[UUID, GuestSpec] = {}
        self.states: dict[UUID, GuestState] = {}
        self.consoles: dict[UUID, bytes] = {}
        self.fail_next: list[Unavailable] = []
        self.obeys_power_button = True
        self.starting_s = 0.0
        self.starts_under_way = 0

    def _enter(self) -> None:
        if self.fail_next:
            raise self.fail_next.pop(0)

    async def start(self, spec: GuestSpec) -> None:
        self._enter()
        self.starts_under_way += 1
        with trio.CancelScope(shield=True):  # as on a thread: not cut off half way
            await trio.sleep(self.starting_s)
        self.starts_under_way -= 1
        self.specs[spec.id] = spec
        self.states[spec.id] = GuestState.RUNNING
        self.consoles.setdefault(spec.id, b"")

    async def state(self, guest_id: UUID) -> GuestState:
        self._enter()
        return self.states.get(guest_id, GuestState.ABSENT)

    async def shutdown(self, guest_id: UUID) -> None:
        self._enter()
        if self.obeys_power_button and self.states.get(guest_id) is GuestState.RUNNING:
            self.states[guest_id] = GuestState.SHUTOFF

    async def destroy(self, guest_id: UUID) -> None:
        self._enter()
        if guest_id in self.states:
            self.states[guest_id] = GuestState.SHUTOFF

    async def remove(self, guest_id: UUID) -> None:
        self._enter()
        for table in (self.specs, self.states, self.consoles):
            table.pop(guest_id, None)

    async def console(self, guest_id: UUID, length_bytes: int) -> bytes:
        self._enter()
        return self.consoles.get(guest_id, b"")[-length_bytes:]

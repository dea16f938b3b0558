"""The compute agent: makes the hypervisor match the server records (level-triggered).

One worker of the cloud runs it at a time: the one that holds the lease ``compute/agent``.  A holder that is known to be dead
(blockgw.client.owner) is succeeded at once.  The lease is renewed beside the work, however long that takes; when it is lost
nothing more is begun.  A call to the hypervisor cannot be cut off, so one that is under way then ends where it may overlap with the
next holder's: every such call may be repeated.

Each pass begins the work that every server needs and does not wait for it.  A server has one piece of work at a time, and at most
GUESTS_STARTING_MAX guests are started at once:

    wanted active    its volume available -> attached -> guest started -> ACTIVE.  A guest that stopped by itself becomes SHUTOFF,
                     as Nova's power-state sync does it
    wanted stopped   power button, after a grace the plug; then SHUTOFF
    wanted deleted   guest removed, volume detached (deleted if it was made for the server), record removed

A step that cannot be done now is tried again; one that never can be puts the server into ERROR with the reason.
"""

from __future__ import annotations

from collections.abc import Callable
from uuid import UUID

import msgspec
import trio

from blockgw.client.interface import Connection, Volumes, VolumeStatus
from blockgw.client.owner import Owner, dead
from compute.hypervisor.interface import GuestSpec, GuestState, Hypervisor
from compute.servers.flavors import flavor
from compute.servers.records import ACTIVE, DELETED, STOPPED, ServerRecord
from compute.servers.store import ServerRecords
from ring.errors import BadInput, Conflict, NotFound, RingfortError, Unavailable
from ring.kv.interface import KV, LeaseId, Put, Unchanged
from ring.world.interface import World

AGENT_KEY = "compute/agent"
LEASE_S = 10.0
PASS_S = 2.0
SHUTDOWN_GRACE_S = 30.0
GUESTS_STARTING_MAX = 2


class ComputeAgent:
    def __init__(
        self,
        world: World,
        kv: KV,
        records: ServerRecords,
        volumes: Volumes,
        hypervisor: Hypervisor,
        *,
        me: Owner,
        log: Callable[[str, str], None],
    ) -> None:
        self._world = world
        self._kv = kv
        self._records = records
        self._volumes = volumes
        self._hypervisor = hypervisor
        self._me = me
        self._log = log
        self._busy: set[str] = set()  # servers being worked on
        self._starting = trio.Semaphore(GUESTS_STARTING_MAX)

    async def run(self) -> None:
        """Until cancelled: wait for the lease, then work while it lasts."""
        while True:
            try:
                lease = await self._claim()
                if lease is not None:
                    await self._work(lease)
            except (Unavailable, NotFound) as error:
                self._log("compute-agent-late", error.message)
            await trio.sleep(LEASE_S / 3)

    async def _claim(self) -> LeaseId | None:
        entry = await self._kv.get(AGENT_KEY)
        if entry is not None:
            held = Owner.parse(entry.value.decode())
            if held is not None and not dead(held, self._me):
                return None
        lease = await self._kv.grant(LEASE_S)
        compare = Unchanged(AGENT_KEY, entry.modified if entry is not None else 0)
        outcome = await self._kv.transact([compare], [Put(AGENT_KEY, str(self._me).encode(), lease)])
        if not outcome.succeeded:
            await self._kv.revoke(lease)
            return None
        return lease

    async def _work(self, lease: LeaseId) -> None:
        """Passes while the lease lasts; then what is under way ends, and nothing more begins."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._passes, nursery)
                await self._keep(lease)
                nursery.cancel_scope.cancel()
        finally:
            with trio.CancelScope(deadline=trio.current_time() + 2, shield=True):
                try:
                    await self._kv.revoke(lease)
                except Unavailable as error:
                    self._log("compute-agent-revoke-late", error.message)

    async def _keep(self, lease: LeaseId) -> None:
        """Renew the lease; returns when it is lost, or could not be renewed for so long that it may be."""
        renewed = trio.current_time()
        while trio.current_time() < renewed + LEASE_S * 0.8:
            try:
                asked = trio.current_time()
                with trio.fail_after(LEASE_S / 4):
                    await self._kv.keep_alive(lease)
                renewed = asked
            except NotFound:
                break
            except (Unavailable, trio.TooSlowError) as error:
                self._log("compute-agent-lease-late", str(error))
            await trio.sleep(LEASE_S / 5)
        self._log("compute-agent-lease-lost", str(self._me))

    async def _passes(self, nursery: trio.Nursery) -> None:
        while True:
            seen = self._records.view.changes
            for record in self._records.all():
                if record.id not in self._busy:
                    self._busy.add(record.id)
                    nursery.start_soon(self._serve, record)
            with trio.move_on_after(PASS_S):
                await self._records.view.wait_change(seen)

    async def _serve(self, record: ServerRecord) -> None:
        """One piece of work for one server, with what is known of it when its turn comes."""
        try:
            try:
                await self._converge(record)
            except (BadInput, NotFound) as error:
                await self._fail(record, error)
        except (Unavailable, Conflict, NotFound) as error:
            self._log("server-retry", f"{record.id}: {error.message}")
        finally:
            self._busy.discard(record.id)

    async def _converge(self, record: ServerRecord) -> None:
        match record.wanted:
            case "active" if record.vm_state != "error" or record.task_state:
                await self._run_it(record)
            case "stopped":
                await self._stop_it(record)
            case "deleted":
                await self._delete_it(record)
            case _:
                return

    async def _run_it(self, record: ServerRecord) -> None:
        guest = UUID(record.id)
        state = await self._hypervisor.state(guest)
        if record.task_state == "rebooting" and state is not GuestState.ABSENT:
            await self._hypervisor.destroy(guest)
            state = GuestState.SHUTOFF
        if state is GuestState.RUNNING:
            if record.vm_state != "active" or record.task_state:
                await self._note(record, vm_state="active", task_state="", launched=record.launched or self._world.clock.now())
            return
        if record.vm_state == "active" and not record.task_state and state in (GuestState.SHUTOFF, GuestState.CRASHED):
            self._log("server-stopped-itself", f"{record.id} {state.value}")
            await self._note(record, wanted=STOPPED, vm_state="stopped")
            return
        volume = await self._volumes.show(record.volume_id, project_id=None)
        if volume.status is VolumeStatus.CREATING:
            return
        if volume.status is VolumeStatus.ERROR:
            raise BadInput(f"volume {volume.id} is in error: {volume.message}")
        if record.vm_state == "building" and record.task_state != "spawning":
            record = await self._note(record, task_state="spawning")
        connection = await self._volumes.attach(record.volume_id, server_id=record.id, device="/dev/vda")
        async with self._starting:
            if self._records.find(record.id).wanted != ACTIVE:
                return  # something else is wanted by now; the next pass does it
            await self._hypervisor.start(_spec(record, connection))
        self._log("server-started", record.id)
        await self._note(record, vm_state="active", task_state="", launched=self._world.clock.now(), message="")

    async def _stop_it(self, record: ServerRecord) -> None:
        guest = UUID(record.id)
        if await self._hypervisor.state(guest) in (GuestState.RUNNING, GuestState.PAUSED):
            now = self._world.clock.now()
            if record.task_state != "powering-off":
                await self._note(record, task_state="powering-off", task_since=now)
                await self._hypervisor.shutdown(guest)
            elif now - record.task_since > SHUTDOWN_GRACE_S:
                await self._hypervisor.destroy(guest)
            return
        if record.vm_state != "stopped" or record.task_state:
            await self._note(record, vm_state="stopped", task_state="")

    async def _delete_it(self, record: ServerRecord) -> None:
        await self._hypervisor.remove(UUID(record.id))
        try:
            await self._volumes.detach(record.volume_id, server_id=record.id)
            if record.own_volume:
                await self._volumes.delete(record.volume_id, project_id=None)
        except (NotFound, BadInput) as error:
            self._log("server-volume", f"{record.id}: {error.message}")
        await self._records.delete(record.id)
        self._log("server-deleted", record.id)

    async def _note(self, record: ServerRecord, **changes: object) -> ServerRecord:
        """Write what became of a server, unless something else is wanted of it by now."""

        def change(old: ServerRecord) -> ServerRecord:
            return msgspec.structs.replace(old, **changes) if old.wanted == record.wanted else old

        return await self._records.change(record.id, change)

    async def _fail(self, record: ServerRecord, error: RingfortError) -> None:
        self._log("server-error", f"{record.id}: {error.message}")
        if record.wanted != DELETED:
            await self._note(record, vm_state="error", task_state="", message=error.message)


def _spec(record: ServerRecord, connection: Connection) -> GuestSpec:
    size = flavor(record.flavor_id)
    return GuestSpec(UUID(record.id), record.name, size.vcpus, size.memory_mib, connection)


__all__ = ["ACTIVE", "ComputeAgent"]

"""The volume agent of one worker: makes true what kv says of the volumes that this worker owns (level-triggered).

    creating   its container is made, then it is available
    in-use     opened when an initiator logs in (``lookup``), kept open until it is detached
    deleting   closed, its objects and logs removed, then its records
    other      closed

A volume is opened once however many logins wait for it, and goes on opening when a login gives up: the initiator's next one finds
it further.  One that fails to open stays closed; the next login tries again.  One that is lost while it serves is closed, and its
sessions with it, so that initiators log in again.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from uuid import UUID

import msgspec
import trio

from blockgw.client.interface import VolumeStatus
from blockgw.client.owner import Owner
from blockgw.images.store import USES, ImageStore
from blockgw.volume import writelog
from blockgw.volume.blocks import BlockReader
from blockgw.volume.records import (
    CHAP_PURPOSE,
    EXPORTS,
    GIB,
    VOLUMES,
    VolumeRecord,
    decode_export,
    decode_volume,
    encode,
    iqn,
    volume_of_iqn,
    worker_of,
)
from blockgw.volume.register import OWNERS, REGISTERS, RegisterKeeper, claim
from blockgw.volume.volume import ACCOUNT, Volume, delete_objects
from identity.client.sealing import Sealer
from ring.errors import Conflict, NotFound, RingfortError, Unavailable
from ring.kv.interface import KV, Delete, Entry, LeaseId, Operation, Put, Unchanged
from ring.kv.view import View
from ring.names import Path
from ring.world.interface import Disk
from storage.client.interface import Storage

LEASE_S = 10.0
RETRY_S = 2.0


@dataclass(frozen=True, slots=True)
class Served:
    """What a target needs to serve a volume."""

    volume_id: str
    device: Volume
    chap_user: str
    chap_secret: str


@dataclass(slots=True)
class _Open:
    volume: Volume
    stop: trio.CancelScope
    stopped: trio.Event


@dataclass(slots=True)
class _Opening:
    done: trio.Event
    error: str = ""


class VolumeAgent:
    def __init__(
        self,
        kv: KV,
        view: View[Entry],
        storage: Storage,
        images: ImageStore,
        sealer: Sealer,
        disks: Sequence[Disk],
        me: Owner,
        *,
        workers: int,
        log: Callable[[str, str], None],
    ) -> None:
        """``view``: of ``blockgw/``, run by the caller.  ``disks``: all devices of this machine.  ``log``: (event, detail)."""
        self._kv = kv
        self._view = view
        self._storage = storage
        self._images = images
        self._sealer = sealer
        self._disks = disks
        self._me = me
        self._workers = workers
        self._log = log
        self._reader = BlockReader(storage)
        self._open: dict[str, _Open] = {}
        self._opening: dict[str, _Opening] = {}
        self._closing: dict[str, trio.Event] = {}
        self._lease: LeaseId | None = None
        self._nursery: trio.Nursery
        self.drop_sessions: Callable[[str], Awaitable[None]] = _nothing_to_drop  # by IQN; set by who makes the target server

    def owns(self, volume_id: str) -> bool:
        return worker_of(volume_id, self._workers) == self._me.worker

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Until cancelled; then every open volume is destaged, checkpointed and closed."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            self._lease = await self._kv.grant(LEASE_S)
            nursery.start_soon(self._keep_lease)
            task_status.started()
            try:
                while True:
                    seen = self._view.changes
                    again = await self._reconcile()
                    with trio.move_on_after(RETRY_S if again else float("inf")):
                        await self._view.wait_change(seen)
            finally:
                with trio.CancelScope(shield=True):
                    for volume_id in list(self._open):
                        await self._close(volume_id)

    async def lookup(self, name: str) -> Served | None:
        """The volume behind a target name, opened; None when there is none, or none that is attached.  Unavailable when it cannot
        be opened now."""
        volume_id = volume_of_iqn(name)
        if volume_id is None or not self.owns(volume_id):
            return None
        record = self._view.get(VOLUMES + volume_id)
        export = self._view.get(EXPORTS + volume_id)
        if record is None or export is None:
            return None
        decoded = decode_export(export.value)
        secret = self._sealer.open(CHAP_PURPOSE, decoded.sealed_secret).decode()
        volume = await self._opened(decode_volume(record.value))
        return Served(volume_id, volume, decoded.chap_user, secret)

    async def _opened(self, record: VolumeRecord) -> Volume:
        while True:
            found = self._open.get(record.id)
            if found is not None and found.volume.healthy:
                return found.volume
            opening = self._opening.get(record.id)
            if opening is None:
                opening = self._opening[record.id] = _Opening(trio.Event())
                self._nursery.start_soon(self._open_it, record, opening)
            await opening.done.wait()
            if opening.error:
                raise Unavailable(opening.error)

    async def _open_it(self, record: VolumeRecord, opening: _Opening) -> None:
        """In the agent's own nursery."""
        try:
            await self._close(record.id)
            volume = await self._recovered(record)
            one = _Open(volume, trio.CancelScope(), trio.Event())
            self._open[record.id] = one
            self._nursery.start_soon(self._run, record.id, one)
            self._log("volume-open", record.id)
        except (RingfortError, OSError) as error:
            opening.error = str(error) or type(error).__name__
            self._log("volume-open-failed", f"{record.id}: {opening.error}")
        finally:
            del self._opening[record.id]
            opening.done.set()
        if record.id in self._open and self._view.get(EXPORTS + record.id) is None:
            await self._close(record.id)  # it was detached meanwhile

    async def _recovered(self, record: VolumeRecord) -> Volume:
        if self._lease is None:
            raise Unavailable("this worker has no lease just now")
        await claim(self._kv, record.id, self._me, self._lease)
        base = await self._images.base(record.image_id) if record.image_id else None
        return await Volume.open(
            UUID(record.id),
            record.size_gib * GIB,
            storage=self._storage,
            reader=self._reader,
            keeper=RegisterKeeper(self._kv, record.id),
            disks=self._preferred(record.id),
            base=base,
            note=lambda trouble: self._log("volume-trouble", trouble),
        )

    async def _run(self, volume_id: str, one: _Open) -> None:
        try:
            with one.stop:
                await one.volume.run()
        except Conflict as error:
            self._log("volume-lost", f"{volume_id}: {error.message}")
        finally:
            one.stopped.set()
        if not one.stop.cancel_called and self._open.get(volume_id) is one:
            await self._close(volume_id, abandon=True)

    async def _close(self, volume_id: str, *, abandon: bool = False) -> None:
        """When it returns the volume is closed, whoever began to close it."""
        one = self._open.pop(volume_id, None)
        if one is None:
            closing = self._closing.get(volume_id)
            if closing is not None:
                await closing.wait()
            return
        closed = self._closing[volume_id] = trio.Event()
        try:
            await self.drop_sessions(iqn(volume_id))
            one.stop.cancel()
            await one.stopped.wait()
            if abandon:
                await one.volume.abandon()
            else:
                await one.volume.close()
            self._log("volume-close", volume_id)
        except RingfortError as error:
            # Nothing is lost: the log stays and the next open replays it.
            self._log("volume-close-late", f"{volume_id}: {error.message}")
        finally:
            del self._closing[volume_id]
            closed.set()

    async def _settled(self, volume_id: str) -> None:
        """It is not in the middle of being opened."""
        while (opening := self._opening.get(volume_id)) is not None:
            await opening.done.wait()

    async def _keep_lease(self) -> None:
        """Renew the lease.  When it ran out every claim is void: volumes that nobody took meanwhile are claimed again."""
        while True:
            await trio.sleep(LEASE_S / 4)
            try:
                with trio.fail_after(LEASE_S / 4):
                    if self._lease is None:
                        lease = await self._kv.grant(LEASE_S)
                        await self._claim_again(lease)
                        self._lease = lease
                    await self._kv.keep_alive(self._lease)
            except NotFound:
                self._log("lease-lost", "claims are made again")
                self._lease = None
            except (Unavailable, trio.TooSlowError) as error:
                self._log("lease-late", str(error))

    async def _claim_again(self, lease: LeaseId) -> None:
        for volume_id in list(self._open):
            try:
                await claim(self._kv, volume_id, self._me, lease)
            except Conflict as error:
                self._log("volume-lost", f"{volume_id}: {error.message}")
                self._nursery.start_soon(self._give_up, volume_id)

    async def _give_up(self, volume_id: str) -> None:
        await self._close(volume_id, abandon=True)

    async def _reconcile(self) -> bool:
        """One pass over the volumes of this worker; True when something has to be tried again."""
        again = False
        for _, entry in self._view.items(VOLUMES):
            record = decode_volume(entry.value)
            if not self.owns(record.id):
                continue
            try:
                match record.status:
                    case "creating":
                        await self._storage.put_container(Path(ACCOUNT, record.id), {})
                        new = msgspec.structs.replace(record, status=VolumeStatus.AVAILABLE.value)
                        await self._transact([Unchanged(entry.key, entry.modified)], [Put(entry.key, encode(new))])
                    case "deleting":
                        await self._delete(record)
                    case "in-use":
                        continue
                    case _:
                        await self._close(record.id)
            except (RingfortError, OSError) as error:
                self._log("volume-retry", f"{record.id} {record.status}: {error}")
                again = True
        return again

    async def _delete(self, record: VolumeRecord) -> None:
        await self._settled(record.id)
        await self._close(record.id, abandon=True)
        await writelog.remove_logs(self._disks, UUID(record.id), keep_epoch=None)
        await delete_objects(self._storage, UUID(record.id))
        keys = [VOLUMES + record.id, REGISTERS + record.id, OWNERS + record.id, EXPORTS + record.id]
        if record.image_id:
            keys.append(f"{USES}{record.image_id}/{record.id}")
        await self._transact([], [Delete(key) for key in keys])

    async def _transact(self, compares: list[Unchanged], operations: list[Operation]) -> None:
        outcome = await self._kv.transact(compares, operations)
        await self._view.wait(outcome.revision)

    def _preferred(self, volume_id: str) -> list[Disk]:
        """The devices in an order of the volume's own, so that logs spread."""
        first = UUID(volume_id).int % len(self._disks)
        return [*self._disks[first:], *self._disks[:first]]


async def _nothing_to_drop(name: str) -> None:
    """Until there is a target server there are no sessions."""

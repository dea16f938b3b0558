"""The volume agent of one worker: makes true what kv says of the volumes that this worker owns (level-triggered).

    creating   its container is made, then it is available
    in-use     opened when an initiator logs in (``lookup``), kept open until it is detached
    deleting   closed, its objects and logs removed, then its records
    other      closed

A volume that fails to open stays closed; the next login tries again.
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
        self._opening: dict[str, trio.Lock] = {}
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
        async with self._opening.setdefault(record.id, trio.Lock()):
            found = self._open.get(record.id)
            if found is not None and found.volume.healthy:
                return found.volume
            if found is not None:
                await self._close(record.id)
            if self._lease is None:
                raise Unavailable("this worker has no lease just now")
            await claim(self._kv, record.id, self._me, self._lease)
            base = await self._images.base(record.image_id) if record.image_id else None
            volume = await Volume.open(
                UUID(record.id),
                record.size_gib * GIB,
                storage=self._storage,
                reader=self._reader,
                keeper=RegisterKeeper(self._kv, record.id),
                disks=self._preferred(record.id),
                base=base,
            )
            one = _Open(volume, trio.CancelScope(), trio.Event())
            self._open[record.id] = one
            self._nursery.start_soon(self._run, record.id, one)
            self._log("volume-open", record.id)
            return volume

    async def _run(self, volume_id: str, one: _Open) -> None:
        try:
            with one.stop:
                await one.volume.run()
        except Conflict as error:
            self._log("volume-lost", f"{volume_id}: {error.message}")
        finally:
            one.stopped.set()

    async def _close(self, volume_id: str, *, abandon: bool = False) -> None:
        one = self._open.pop(volume_id)
        await self.drop_sessions(iqn(volume_id))
        one.stop.cancel()
        await one.stopped.wait()
        try:
            if abandon:
                await one.volume.abandon()
            else:
                await one.volume.close()
            self._log("volume-close", volume_id)
        except RingfortError as error:
            # Nothing is lost: the log stays and the next open replays it.
            self._log("volume-close-late", f"{volume_id}: {error.message}")

    async def _keep_lease(self) -> None:
        """Renew the lease; when it ran out every claim is void, so volumes are given up before another worker may have them."""
        while True:
            await trio.sleep(LEASE_S / 4)
            try:
                if self._lease is None:
                    self._lease = await self._kv.grant(LEASE_S)
                with trio.fail_after(LEASE_S / 4):
                    await self._kv.keep_alive(self._lease)
            except NotFound:
                self._lease = None
                for volume_id in list(self._open):
                    await self._close(volume_id, abandon=True)
            except (Unavailable, trio.TooSlowError) as error:
                self._log("lease-late", str(error))

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
                        if record.id in self._open:
                            await self._close(record.id)
            except (RingfortError, OSError) as error:
                self._log("volume-retry", f"{record.id} {record.status}: {error}")
                again = True
        return again

    async def _delete(self, record: VolumeRecord) -> None:
        if record.id in self._open:
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

"""LocalVolumes: the Volumes protocol as changes of desired state in kv; the agent of the volume's worker makes them true."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from uuid import UUID

import msgspec
import trio

from blockgw.client.interface import Connection, Volume, VolumeStatus
from blockgw.images.store import ImageStore
from blockgw.volume.records import (
    CHAP_PURPOSE,
    EXPORTS,
    GIB,
    VOLUMES,
    Export,
    VolumeRecord,
    decode_export,
    decode_volume,
    encode,
    iqn,
    to_volume,
)
from blockgw.volume.register import RegisterKeeper
from identity.client.interface import Access
from identity.client.sealing import Sealer
from ring.errors import BadInput, Conflict, NotFound, Unavailable
from ring.kv.interface import KV, Delete, Entry, Operation, Put, Unchanged
from ring.kv.view import View
from ring.world.interface import World

SIZE_GIB_MAX = 65_536
TRIES = 8
VolumeChange = Callable[[VolumeRecord], VolumeRecord]


class LocalVolumes:
    """Implements blockgw.client.interface.Volumes."""

    def __init__(
        self, world: World, kv: KV, view: View[Entry], images: ImageStore, sealer: Sealer, *, portal: str, lun: int = 1
    ) -> None:
        """``view``: of ``blockgw/``, run by the caller.  ``portal``: HOST:PORT as initiators reach it."""
        self._world = world
        self._kv = kv
        self._view = view
        self._images = images
        self._sealer = sealer
        self._portal = portal
        self._lun = lun

    async def create(
        self,
        access: Access,
        *,
        size_gib: int,
        name: str = "",
        description: str = "",
        image_id: str = "",
        metadata: Mapping[str, str] | None = None,
    ) -> Volume:
        if not 1 <= size_gib <= SIZE_GIB_MAX:
            raise BadInput(f"Invalid input received: size must be 1 to {SIZE_GIB_MAX} (GiB)")
        volume_id = str(self._world.entropy.uuid())
        now = self._world.clock.now()
        record = VolumeRecord(
            id=volume_id,
            project_id=access.project_id,
            user_id=access.user_id,
            name=name,
            description=description,
            size_gib=size_gib,
            status=VolumeStatus.CREATING.value,
            created=now,
            updated=now,
            image_id=image_id,
            metadata=dict(metadata or {}),
        )
        for _ in range(TRIES):
            compares = [Unchanged(VOLUMES + volume_id, 0)]
            operations: list[Operation] = [Put(VOLUMES + volume_id, encode(record)), RegisterKeeper.create(volume_id)]
            if image_id:
                more_compares, more, needed = await self._images.use(image_id, volume_id)
                if needed > size_gib * GIB:
                    raise BadInput(f"Invalid input received: the image needs a volume of at least {-(-needed // GIB)} GiB")
                compares += more_compares
                operations += more
            if await self._transact(compares, operations):
                return to_volume(record)
        raise Unavailable("the image is being changed by others; try again")

    async def show(self, volume_id: str, *, project_id: str | None) -> Volume:
        return to_volume(self._record(volume_id, project_id)[0])

    async def list(self, *, project_id: str | None) -> list[Volume]:
        found = [decode_volume(entry.value) for _, entry in self._view.items(VOLUMES)]
        found.sort(key=lambda record: record.created, reverse=True)
        return [to_volume(record) for record in found if project_id in (None, record.project_id)]

    async def update(self, volume_id: str, *, project_id: str | None, name: str | None, description: str | None) -> Volume:
        def change(record: VolumeRecord) -> VolumeRecord:
            new_name = record.name if name is None else name
            new_description = record.description if description is None else description
            return msgspec.structs.replace(record, name=new_name, description=new_description)

        return await self._change(volume_id, project_id, change)

    async def delete(self, volume_id: str, *, project_id: str | None) -> None:
        def change(record: VolumeRecord) -> VolumeRecord:
            if record.status not in ("available", "error", "error_deleting", "deleting"):
                raise BadInput(f"Invalid volume: Volume status must be available or error, but current status is: {record.status}.")
            return msgspec.structs.replace(record, status=VolumeStatus.DELETING.value)

        await self._change(volume_id, project_id, change)

    async def attach(self, volume_id: str, *, server_id: str, device: str) -> Connection:
        def change(record: VolumeRecord) -> VolumeRecord:
            if record.status == "in-use" and record.server_id == server_id:
                return record
            if record.status != "available":
                raise Conflict(f"Volume {volume_id} is {record.status}; only an available volume can be attached.")
            return msgspec.structs.replace(record, status=VolumeStatus.IN_USE.value, server_id=server_id, device=device)

        entry = self._view.get(EXPORTS + volume_id)
        if entry is None:
            secret = base64.b32encode(self._world.entropy.token(15)).decode().lower()
            user = f"volume-{UUID(volume_id).hex[:12]}"
            export = Export(chap_user=user, sealed_secret=self._sealer.seal(CHAP_PURPOSE, secret.encode()))
        else:
            export = decode_export(entry.value)
            secret = self._sealer.open(CHAP_PURPOSE, export.sealed_secret).decode()
        guard = Unchanged(EXPORTS + volume_id, entry.modified if entry is not None else 0)
        await self._change(volume_id, None, change, [guard], [Put(EXPORTS + volume_id, encode(export))])
        return Connection(self._portal, iqn(volume_id), self._lun, export.chap_user, secret)

    async def detach(self, volume_id: str, *, server_id: str) -> None:
        def change(record: VolumeRecord) -> VolumeRecord:
            if record.server_id != server_id:
                raise Conflict("it is not attached to that server")
            return msgspec.structs.replace(record, status=VolumeStatus.AVAILABLE.value, server_id="", device="")

        try:
            await self._change(volume_id, None, change, [], [Delete(EXPORTS + volume_id)])
        except (NotFound, Conflict):
            return

    async def wait_available(self, volume_id: str, *, timeout_s: float) -> Volume:
        with trio.move_on_after(timeout_s):
            while True:
                seen = self._view.changes
                volume = await self.show(volume_id, project_id=None)
                if volume.status is VolumeStatus.AVAILABLE:
                    return volume
                if volume.status in (VolumeStatus.ERROR, VolumeStatus.DELETING):
                    raise Conflict(f"volume {volume_id} is {volume.status.value}: {volume.message}")
                await self._view.wait_change(seen)
        raise Unavailable(f"volume {volume_id} is not available after {timeout_s:.0f} s")

    def _record(self, volume_id: str, project_id: str | None) -> tuple[VolumeRecord, Entry]:
        entry = self._view.get(VOLUMES + volume_id)
        record = decode_volume(entry.value) if entry is not None else None
        if entry is None or record is None or project_id not in (None, record.project_id):
            raise NotFound(f"Volume {volume_id} could not be found.")
        return record, entry

    async def _change(
        self,
        volume_id: str,
        project_id: str | None,
        change: VolumeChange,
        guards: Sequence[Unchanged] = (),
        also: Sequence[Operation] = (),
    ) -> Volume:
        """Read, change, compare and set; again when someone was faster."""
        for _ in range(TRIES):
            record, entry = self._record(volume_id, project_id)
            new = msgspec.structs.replace(change(record), updated=self._world.clock.now())
            operations: list[Operation] = [Put(entry.key, encode(new)), *also]
            if await self._transact([Unchanged(entry.key, entry.modified), *guards], operations):
                return to_volume(new)
        raise Conflict(f"volume {volume_id} is being changed by others; try again")

    async def _transact(self, compares: Sequence[Unchanged], operations: Sequence[Operation]) -> bool:
        outcome = await self._kv.transact(compares, operations)
        await self._view.wait(outcome.revision)
        return outcome.succeeded

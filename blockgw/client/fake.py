"""FakeVolumes: volumes in RAM, available as soon as they are made.  For the tests of the rooms above.

``fail_next`` makes the next calls raise; ``hold`` keeps new volumes in the status creating until ``finish``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import trio

from blockgw.client.interface import Connection, Volume, VolumeStatus
from identity.client.interface import Access
from ring.errors import BadInput, Conflict, NotFound, Unavailable
from ring.world.interface import World

SIZE_GIB_MAX = 65_536
DELETABLE = (VolumeStatus.AVAILABLE, VolumeStatus.ERROR)


class FakeVolumes:
    """Implements blockgw.client.interface.Volumes."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._changed = trio.Event()
        self.volumes: dict[str, Volume] = {}
        self.fail_next: list[Exception] = []
        self.hold = False

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
        await self._enter()
        if not 1 <= size_gib <= SIZE_GIB_MAX:
            raise BadInput(f"Invalid input received: size must be 1 to {SIZE_GIB_MAX} (GiB)")
        now = self._world.clock.now()
        volume = Volume(
            id=str(self._world.entropy.uuid()),
            project_id=access.project_id,
            user_id=access.user_id,
            name=name,
            size_gib=size_gib,
            status=VolumeStatus.CREATING if self.hold else VolumeStatus.AVAILABLE,
            created=now,
            updated=now,
            image_id=image_id,
            bootable=bool(image_id),
            description=description,
            metadata=dict(metadata or {}),
        )
        return self._set(volume)

    def finish(self, volume_id: str, *, error: str = "") -> None:
        """A volume that is being created is available now, or in error."""
        status = VolumeStatus.ERROR if error else VolumeStatus.AVAILABLE
        self._set(replace(self.volumes[volume_id], status=status, message=error))

    async def show(self, volume_id: str, *, project_id: str | None) -> Volume:
        await self._enter()
        return self._get(volume_id, project_id)

    async def list(self, *, project_id: str | None) -> list[Volume]:
        await self._enter()
        return [volume for volume in reversed(self.volumes.values()) if project_id in (None, volume.project_id)]

    async def update(self, volume_id: str, *, project_id: str | None, name: str | None, description: str | None) -> Volume:
        await self._enter()
        old = self._get(volume_id, project_id)
        new_description = old.description if description is None else description
        return self._set(replace(old, name=old.name if name is None else name, description=new_description))

    async def delete(self, volume_id: str, *, project_id: str | None) -> None:
        await self._enter()
        volume = self._get(volume_id, project_id)
        if volume.status not in DELETABLE:
            raise BadInput(f"Invalid volume: Volume status must be available or error, but is: {volume.status.value}.")
        del self.volumes[volume_id]

    async def attach(self, volume_id: str, *, server_id: str, device: str) -> Connection:
        await self._enter()
        volume = self._get(volume_id, None)
        if volume.status is VolumeStatus.AVAILABLE:
            self._set(replace(volume, status=VolumeStatus.IN_USE, server_id=server_id, device=device))
        elif volume.status is not VolumeStatus.IN_USE or volume.server_id != server_id:
            raise Conflict(f"Volume {volume_id} is {volume.status.value}; only an available volume can be attached.")
        return Connection("127.0.0.1:3260", f"iqn.2026-01.org.ringfort:volume-{volume_id}", 1, "chap-user", "chap-secret")

    async def detach(self, volume_id: str, *, server_id: str) -> None:
        await self._enter()
        volume = self.volumes.get(volume_id)
        if volume is not None and volume.status is VolumeStatus.IN_USE and volume.server_id == server_id:
            self._set(replace(volume, status=VolumeStatus.AVAILABLE, server_id="", device=""))

    async def wait_available(self, volume_id: str, *, timeout_s: float) -> Volume:
        await self._enter()
        with trio.move_on_after(timeout_s):
            while True:
                volume = self._get(volume_id, None)
                if volume.status is VolumeStatus.AVAILABLE:
                    return volume
                if volume.status is VolumeStatus.ERROR:
                    raise Conflict(f"volume {volume_id} is error: {volume.message}")
                await self._changed.wait()
        raise Unavailable(f"volume {volume_id} is not available after {timeout_s:.0f} s")

    async def _enter(self) -> None:
        await trio.lowlevel.checkpoint()
        if self.fail_next:
            raise self.fail_next.pop(0)

    def _get(self, volume_id: str, project_id: str | None) -> Volume:
        volume = self.volumes.get(volume_id)
        if volume is None or project_id not in (None, volume.project_id):
            raise NotFound(f"Volume {volume_id} could not be found.")
        return volume

    def _set(self, volume: Volume) -> Volume:
        self.volumes[volume.id] = volume
        changed, self._changed = self._changed, trio.Event()
        changed.set()
        return volume

"""Watch: keeps one device in service while that is safe: looks at it, closes what failed, opens it anew when it is back.

A look reads the label and the room of the file system, about once a second and at once after an error that may mean more.
Between looks the disk itself refuses to go by a name into another folder (World's ``Disk.anchor``), so nothing can be written to,
or be found missing in, a folder that is only in the place of the device's.

Decides nothing about what the device is good for (health) nor how it is served (the caller of ``keep``).  Neighbours: health,
device, tools.deploy.devices (serves).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace

import trio

from ring.errors import FormatError, RingfortError
from ring.world.interface import World
from storage.object.device import OpenDevice, open_device, read_label, takes_writes
from storage.object.errors import DeviceAway
from storage.object.health import Change, Health, Reserve, State

LOOK_S = 1.0

Serve = Callable[[OpenDevice, Callable[[], None]], Awaitable[None]]


class DeviceWatch:
    """One device of this worker.  ``disk_id``: which disk is meant, if several had this device's label; asked before each opening.
    ``note`` is told of each change of its health."""

    def __init__(
        self,
        world: World,
        root: str,
        cluster_id: str,
        device_id: int,
        *,
        disk_id: Callable[[], str] = lambda: "",
        reserve: Reserve | None = None,
        look_s: float = LOOK_S,
        note: Callable[[Change], None] = lambda change: None,
    ) -> None:
        self.device_id = device_id
        self.health = Health(reserve, trio.current_time())
        self.health.changed = self._changed
        self._world = world
        self._disk = world.open_disk(root)
        self._cluster_id = cluster_id
        self._disk_id = disk_id
        self._look_s = look_s
        self._note = note
        self._stirred = trio.Event()  # do not wait for the next look
        self._tried = trio.Event()

    async def tried(self) -> None:
        """Until the device was opened, or could not be, for the first time."""
        await self._tried.wait()

    async def keep(self, serve: Serve) -> None:
        """Until cancelled.  ``serve`` runs the engines of a device that was opened, calls what it is given when they run, and ends
        with the device closed; it is cancelled when the device goes out of service.  A RingfortError or OSError that it raises is
        what is wrong with the device."""
        while True:
            if not self.health.wait_s(trio.current_time()):
                try:
                    await self._serve(serve)
                except* (RingfortError, OSError) as group:
                    self._could_not(_first(group))
                self._tried.set()
            await trio.sleep(self._look_s)

    async def look(self) -> None:
        """What there is to see of it now, for its health."""
        now, health = trio.current_time(), self.health
        try:
            await read_label(self._disk, self._cluster_id, self.device_id, self._disk_id())
            space = await self._disk.space()
            if health.state is State.READ_ONLY and not space.read_only:
                space = replace(space, read_only=not await takes_writes(self._disk))
        except DeviceAway as error:
            health.missing(error.message, now)
        except FormatError as error:
            health.failed(error.message, now)
        except OSError as error:
            health.erred(error, f"looked at, {now:.0f} s", now)
        else:
            health.looked(space, trio.current_time())

    async def _serve(self, serve: Serve) -> None:
        self.health.trying()
        device = await open_device(
            self._world, self._disk.root, self._cluster_id, self.device_id, disk_id=self._disk_id(), health=self.health
        )

        def opened() -> None:
            self.health.opened(trio.current_time())
            self._stirred.set()
            self._tried.set()

        async with trio.open_nursery() as nursery:

            async def run() -> None:
                await serve(device, opened)
                nursery.cancel_scope.cancel()

            nursery.start_soon(run)
            await self._look_on()
            nursery.cancel_scope.cancel()

    async def _look_on(self) -> None:
        """Until the device is out."""
        while not self.health.out:
            with trio.move_on_after(self._look_s):
                await self._stirred.wait()
            self._stirred = trio.Event()
            if not self.health.out:
                await self.look()

    def _could_not(self, error: RingfortError | OSError) -> None:
        if isinstance(error, DeviceAway):
            self.health.missing(error.message, trio.current_time())
        elif not self.health.out:  # else an engine has said it already
            self.health.failed(error.message if isinstance(error, RingfortError) else str(error), trio.current_time())

    def _changed(self, change: Change) -> None:
        self._stirred.set()
        self._note(change)


def _first(group: BaseExceptionGroup[RingfortError | OSError]) -> RingfortError | OSError:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, (RingfortError, OSError))
    return error

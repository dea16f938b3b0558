"""LibvirtHypervisor: guests of qemu:///system.

libvirt-python blocks, so every call runs through world.offload, on a connection that is opened again when it was lost.
Only this module imports libvirt.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar
from uuid import UUID

import libvirt

from compute.hypervisor.domain import domain_xml, secret_usage, secret_xml
from compute.hypervisor.interface import GuestSpec, GuestState
from ring.errors import Unavailable
from ring.world.interface import Disk, OpenMode, World

URI = "qemu:///system"
T = TypeVar("T")
_STATES = {
    libvirt.VIR_DOMAIN_RUNNING: GuestState.RUNNING,
    libvirt.VIR_DOMAIN_BLOCKED: GuestState.RUNNING,
    libvirt.VIR_DOMAIN_PAUSED: GuestState.PAUSED,
    libvirt.VIR_DOMAIN_PMSUSPENDED: GuestState.PAUSED,
    libvirt.VIR_DOMAIN_SHUTDOWN: GuestState.RUNNING,  # on its way down
    libvirt.VIR_DOMAIN_SHUTOFF: GuestState.SHUTOFF,
    libvirt.VIR_DOMAIN_CRASHED: GuestState.CRASHED,
}


class LibvirtHypervisor:
    """Implements compute.hypervisor.interface.Hypervisor."""

    def __init__(self, world: World, consoles: Disk, *, virt_type: str) -> None:
        """``consoles``: the folder whose files the guests' serial consoles are."""
        self._world = world
        self._consoles = consoles
        self._virt_type = virt_type
        self._connection: Any = None
        libvirt.registerErrorHandler(_no_stderr, None)

    async def start(self, spec: GuestSpec) -> None:
        await self._call(self._start, spec)

    async def state(self, guest_id: UUID) -> GuestState:
        return await self._call(self._state, guest_id)

    async def shutdown(self, guest_id: UUID) -> None:
        await self._call(self._when_active, guest_id, "shutdown")

    async def destroy(self, guest_id: UUID) -> None:
        await self._call(self._when_active, guest_id, "destroy")

    async def remove(self, guest_id: UUID) -> None:
        await self._call(self._remove, guest_id)
        name = _console_name(guest_id)
        if await self._consoles.info(name) is not None:
            await self._consoles.unlink(name)

    async def console(self, guest_id: UUID, length_bytes: int) -> bytes:
        name = _console_name(guest_id)
        info = await self._consoles.info(name)
        if info is None:
            return b""
        file = await self._consoles.open(name, OpenMode.READ)
        try:
            return await file.pread(max(0, info.size - length_bytes), length_bytes)
        finally:
            await file.close()

    async def _call(self, call: Callable[..., T], *args: object) -> T:
        try:
            return await self._world.offload.run(call, *args)
        except libvirt.libvirtError as error:
            raise Unavailable(f"libvirt: {error.get_error_message() or error}") from error

    # ---- on a thread

    def _connected(self) -> Any:
        if self._connection is None or not self._connection.isAlive():
            self._connection = libvirt.open(URI)
        return self._connection

    def _domain(self, guest_id: UUID) -> Any:
        """None when there is no such guest."""
        try:
            return self._connected().lookupByUUIDString(str(guest_id))
        except libvirt.libvirtError as error:
            if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
                return None
            raise

    def _start(self, spec: GuestSpec) -> None:
        domain = self._domain(spec.id)
        if domain is not None and domain.isActive():
            return
        connection = self._connected()
        secret = connection.secretDefineXML(secret_xml(spec))
        secret.setValue(spec.disk.chap_secret.encode())
        path = f"{self._consoles.root}/{_console_name(spec.id)}"
        connection.defineXML(domain_xml(spec, virt_type=self._virt_type, console_path=path)).create()

    def _state(self, guest_id: UUID) -> GuestState:
        domain = self._domain(guest_id)
        if domain is None:
            return GuestState.ABSENT
        return _STATES.get(domain.state()[0], GuestState.CRASHED)

    def _when_active(self, guest_id: UUID, verb: str) -> None:
        domain = self._domain(guest_id)
        if domain is not None and domain.isActive():
            getattr(domain, verb)()

    def _remove(self, guest_id: UUID) -> None:
        domain = self._domain(guest_id)
        if domain is not None:
            if domain.isActive():
                domain.destroy()
            domain.undefine()
        connection = self._connected()
        try:
            connection.secretLookupByUUIDString(str(guest_id)).undefine()
        except libvirt.libvirtError as error:
            if error.get_error_code() != libvirt.VIR_ERR_NO_SECRET:
                raise


def _console_name(guest_id: UUID) -> str:
    return f"{guest_id}.log"


def _no_stderr(context: object, error: object) -> None:
    """libvirt prints every error unless told otherwise; ours are raised."""


__all__ = ["URI", "LibvirtHypervisor", "secret_usage"]

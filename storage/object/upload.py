"""A large body on its way to one device (storage.client.node.Upload): the file first, durable, then the record that commits it.

Neighbours: files.py writes the file; store.py has the log and the index.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from ring.errors import BadInput, Conflict, DiskFull
from ring.names import Path
from ring.world.interface import Buffer
from storage.client.errors import ClockAhead, PromisedAbove
from storage.client.node import Debt, Kind, Version, WriteReply
from storage.object.files import FileWriter, disk_fault, file_path, remove
from storage.object.record import Record, RecordKind, encode_info, info_of

if TYPE_CHECKING:
    from storage.object.store import ObjectStore


class FileUpload:
    def __init__(self, store: ObjectStore, path: Path, name_hash: bytes, writer: FileWriter, *, sized: bool) -> None:
        self._store = store
        self._path = path
        self._hash = name_hash
        self._writer = writer
        self._sized = sized  # the room for it was taken when it began
        self._open = True
        self._committing = False

    async def write(self, data: Buffer) -> None:
        """DiskFault, DiskFull, DeviceOutOfService: then it is over, nothing is left behind."""
        self._check()
        if self._sized:
            self._store.device.check_writable()
        else:
            self._store.device.admit(len(data))
        try:
            await self._writer.write(data)
        except OSError as error:
            self._store.device.erred(error, f"a file of {self._hash.hex()}")
            await self._discard()
            raise disk_fault(self._store.device.device_id, "write an object's file", error) from error

    async def commit(self, version: Version, debt: Debt | None) -> WriteReply:
        self._check()
        if version.path != self._path or version.kind is not Kind.OBJECT:
            raise BadInput("the upload was begun for another name")
        if version.size != self._writer.size:
            raise BadInput(f"the body has {self._writer.size} bytes, not {version.size}")
        known = self._store.known(self._hash, version, debt)
        if known is None:
            self._store.admission.check(self._hash, version.timestamp)  # refused, the upload is as it was
        self._committing = True
        try:
            await self._store.room()
            known = known or self._store.known(self._hash, version, debt)
            if known is None:
                return await self._commit(version, debt)
        finally:
            await self._discard()
        return await known.wait()

    async def _commit(
        self, version: Version, debt: Debt | None, kind: RecordKind = RecordKind.OBJECT_FILE, data: bytes = b""
    ) -> WriteReply:
        store, disk = self._store, self._store.device.disk
        path = ""
        encode_info(info_of(version, debt, self._writer.info(0)))  # BadInput, before anything is written that has a name
        try:
            try:
                await self._writer.finish(version.timestamp)
                file = await self._writer.link(version.timestamp)
            except OSError as error:
                store.device.erred(error, f"a file of {self._hash.hex()}")
                raise disk_fault(store.device.device_id, "store an object's file", error) from error
            path = file_path(self._hash, version.timestamp, file.serial)
            store.in_doubt.add(path)
            info = info_of(version, debt, file)
            store.admission.check(self._hash, version.timestamp)  # a promise may have come meanwhile
            pending = store.packs.submit(Record(kind, self._hash, version.timestamp, info, data))
            landed = await pending.wait()
        except (DiskFull, PromisedAbove, ClockAhead):
            if path:
                with suppress(OSError):  # then it is an orphan
                    await remove(disk, path)
            raise
        finally:
            store.in_doubt.discard(path)  # given up on while the record was on its way: the auditor looks whether it came
        if not landed.taken:
            with suppress(OSError):  # then it is an orphan
                await remove(disk, path)
        return WriteReply(landed.newest, paid=debt is None or not landed.taken, never=landed.never)

    async def abort(self) -> None:
        """Nothing happens to a commit that was begun: it runs to its end, whoever waits for it."""
        if not self._committing:
            await self._discard()

    async def _discard(self) -> None:
        if self._open:
            self._open = False
            await self._writer.discard()

    def _check(self) -> None:
        self._store.device.check()
        if not self._open:
            raise Conflict("the upload is over")

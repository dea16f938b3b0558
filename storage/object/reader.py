"""Reading a version that the index holds: its record from a pack, and its file when it is large; each byte is checked first.

What does not check is reported to the store, which examines it, and is a DiskFault to the caller.  A record that compaction moved
while it was being looked for is looked for again.  Small versions are read from the page cache without a task or a thread.
Neighbours: store.py (who asks), segments.py, compression.py, files.py.
"""

from __future__ import annotations

from collections.abc import Callable

from ring.errors import DiskFault
from ring.names import Path
from ring.timestamp import Timestamp
from ring.world.interface import Offload
from storage.client.bodies import OnePiece
from storage.client.node import NodeReading, Version
from storage.object.compression import OFFLOAD_BYTES, decompress, decompress_apart
from storage.object.device import OpenDevice
from storage.object.entry import Held
from storage.object.errors import BadRecord
from storage.object.files import disk_fault, file_path, file_problem, open_pieces
from storage.object.record import HEAD_BYTES, Info, Record, decode_info, decode_record
from storage.object.segments import Place, Segments


class Reader:
    def __init__(
        self,
        device: OpenDevice,
        segments: Segments,
        offload: Offload,
        newest: Callable[[bytes], Held | None],
        suspect: Callable[[bytes], None],
        refers: Callable[[bytes, str], bool],
    ) -> None:
        self._device = device
        self._segments = segments
        self._offload = offload
        self._newest = newest  # what the index holds of a hash
        self._suspect = suspect  # told the key of what seems damaged
        self._refers = refers  # whether the index still names a file

    async def open(self, held: Held, offset: int, length: int | None) -> NodeReading | None:
        """None when the version went away meanwhile: look again."""
        entry = held.entry
        try:
            record = await self.record(held)
            version = await self.describe(held, Path(*record.info.path), record.info)
        except DiskFault:
            now = self._newest(held.hash)
            if now is None or now.key != held.key:
                return None
            raise
        end = entry.size if length is None else min(entry.size, offset + length)
        if not entry.in_file:
            data = record.data if not record.zstd else await self._unpack(held, record)
            return NodeReading(version, OnePiece(bytes(data[offset:end])))
        file = record.info.file
        assert file is not None
        path = file_path(held.hash, held.timestamp, entry.serial)
        try:
            pieces = await open_pieces(
                self._device.disk, path, file, entry.size, offset, end, lambda problem: self.bad(held, problem)
            )
        except FileNotFoundError as error:
            if self._refers(held.hash, path):
                raise self.bad(held, "its file is gone") from error
            return None
        except OSError as error:
            self._device.erred(error, held.key.hex())
            raise disk_fault(self._device.device_id, "open an object's file", error) from error
        return NodeReading(version, pieces)

    async def record(self, held: Held) -> Record:
        """The version's record, every byte of it checked; its data as it is stored.  DiskFault."""
        while True:
            place = held.entry.place
            try:
                data, salt = await self._read(place, place.length)
                record = decode_record(data, salt)
            except (DiskFault, BadRecord) as error:
                held = self._moved(held, error)
                continue
            if record.hash != held.hash or record.timestamp != held.timestamp:
                raise self.bad(held, "another record lies where it should")
            return record

    async def _unpack(self, held: Held, record: Record) -> bytes:
        try:
            if record.info.size < OFFLOAD_BYTES:
                return decompress(record.data, record.info.size)
            return await self._offload.run(decompress_apart, record.data, record.info.size)
        except BadRecord as error:
            raise self.bad(held, error.message) from error

    async def _info(self, held: Held) -> Info:
        """What the newest POST, or else the version itself, says."""
        while True:
            place = held.entry.posted or held.entry.place
            try:
                data, salt = await self._read(place, HEAD_BYTES + place.meta)
                head, info = decode_info(data, salt)
            except (DiskFault, BadRecord) as error:
                held = self._moved(held, error)
                continue
            if head.key != held.key:
                raise self.bad(held, "another record lies where it should")
            return info

    async def _read(self, place: Place, length: int) -> tuple[bytes, int]:
        """Bytes, and the salt of their checksums."""
        try:
            found = self._segments.read_now(place, length)
        except OSError:
            found = None  # the other way of reading meets it again and says what it is
        return found if found is not None else await self._segments.read(place, length)

    def _moved(self, held: Held, error: DiskFault | BadRecord) -> Held:
        """The same version, when it lies somewhere else by now; else the error is raised."""
        now = self._newest(held.hash)
        if now is not None and now.key == held.key and now.entry != held.entry:
            return now
        if isinstance(error, DiskFault):
            raise error
        raise self.bad(held, error.message) from error

    async def describe(self, held: Held, path: Path, info: Info | None = None) -> Version:
        """What a HEAD says.  ``info`` is that of the version's record, when it was read already."""
        entry = held.entry
        posted_at = Timestamp.unpack(entry.posted_at) if entry.posted_at else None
        if entry.head is not None:
            content_type, metadata = entry.head.content_type, entry.head.metadata
        else:
            if entry.posted is not None or info is None:
                info = await self._info(held)
            content_type, metadata = info.content_type, info.metadata
        return Version(path, held.timestamp, held.kind, entry.size, entry.etag, content_type, metadata, posted_at, held.origin)

    async def path(self, held: Held) -> Path:
        """Its name, as the record says it.  DiskFault."""
        return Path(*(await self._info(held)).path)

    async def problem(self, held: Held) -> str:
        """What is wrong with a version; "" when every byte of it can be read and is right."""
        entry = held.entry
        try:
            record = await self.record(held)
            if record.zstd:
                await self._unpack(held, record)
            if entry.posted is not None:
                await self._info(held)
        except DiskFault as error:
            return error.message
        if not entry.in_file or record.info.file is None:
            return ""
        return await file_problem(
            self._device.disk, file_path(held.hash, held.timestamp, entry.serial), record.info.file, entry.stored_bytes
        )

    def bad(self, held: Held, problem: str) -> DiskFault:
        """The error to raise."""
        self._suspect(held.key)
        return DiskFault(f"device {self._device.device_id}: {held.key.hex()}: {problem}")

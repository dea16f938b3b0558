"""The write log of one volume on up to two devices: taken in RAM, made durable together, replayed after a crash.

``take`` copies a write into the buffer and gives it the next sequence number; ``sync`` returns when everything taken before it is
on all log devices.  One sync runs at a time and carries everything that waits (group commit).  When a device fails, the log moves:
a new file on the devices that are left (another one stands in where there is one) receives everything not yet destaged before
anybody is told that it is durable.  With fewer healthy devices than the policy asks for, sync raises DiskFault.

Files: ``volumes/<volume>/<epoch, 8 hex>-<number, 8 hex>.log`` below the device's root.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from uuid import UUID

import trio

from blockgw.volume import logfile
from blockgw.volume.logfile import Header, Kind, Record
from ring.errors import DiskFault, FormatError, Unavailable
from ring.world.interface import Buffer, Disk, File, OpenMode

FILE_BYTES_MAX = 64 << 20


@dataclass(slots=True)
class _LogFile:
    disk: Disk
    path: str
    file: File


@dataclass(slots=True)
class _Generation:
    """One file on each log device."""

    files: list[_LogFile]
    last_sequence: int = 0


class WriteLog:
    def __init__(
        self,
        disks: Sequence[Disk],
        volume: UUID,
        epoch: int,
        *,
        copies: int,
        next_sequence: int,
        undestaged: Callable[[], Iterable[tuple[int, Kind, int, int, Buffer]]],
    ) -> None:
        """``disks``: every device of the machine in the volume's order of preference; ``copies`` of them hold the log.
        ``undestaged`` gives (sequence, kind, offset, length, data) of what is not in segments yet, for a log that has to move."""
        self._disks = list(disks)
        self._volume = volume
        self._epoch = epoch
        self._copies = copies
        self._undestaged = undestaged
        self._next_sequence = next_sequence
        self._buffer: list[Buffer] = []
        self._buffer_bytes = 0
        self._synced = next_sequence - 1
        self._generations: list[_Generation] = []
        self._number = 0
        self._lock = trio.Lock()

    @property
    def last_taken(self) -> int:
        return self._next_sequence - 1

    @property
    def buffer_bytes(self) -> int:
        """Taken and not yet durable."""
        return self._buffer_bytes

    def take(self, kind: Kind, offset: int, length: int, data: Buffer = b"") -> int:
        """Its sequence number.  ``data`` must not change afterwards."""
        sequence = self._next_sequence
        self._next_sequence += 1
        self._buffer.append(logfile.encode_record(sequence, kind, offset, length, data))
        if len(data):
            self._buffer.append(data)
        self._buffer_bytes += logfile.RECORD_BYTES + len(data)
        return sequence

    async def sync(self) -> None:
        """Everything taken so far is durable on all log devices.  DiskFault when too few devices are left."""
        wanted = self.last_taken
        async with self._lock:
            if self._synced >= wanted:
                return
            if not self._generations or self._full():
                await self._rotate()
            while True:
                buffers, self._buffer = self._buffer, []
                taken, self._buffer_bytes = self.last_taken, 0
                if not buffers:
                    return
                generation = self._generations[-1]
                failed = await self._append(generation.files, buffers)
                if not failed:
                    generation.last_sequence = self._synced = taken
                    return
                for one in failed:
                    self._disks = [disk for disk in self._disks if disk is not one.disk]
                await self._rotate(everything=True)
                self._synced = max(self._synced, taken)
                if self._synced >= wanted:
                    return

    async def destaged(self, sequence: int) -> None:
        """Segments hold everything up to ``sequence``: files that hold nothing newer go."""
        async with self._lock:
            for generation in [g for g in self._generations[:-1] if g.last_sequence <= sequence]:
                self._generations.remove(generation)
                await _remove(generation.files)

    async def close(self, *, remove: bool) -> None:
        """``remove``: everything is destaged and checkpointed."""
        async with self._lock:
            for generation in self._generations:
                if remove:
                    await _remove(generation.files)
                else:
                    for one in generation.files:
                        await one.file.close()
            self._generations.clear()

    def _full(self) -> bool:
        return any(one.file.size() > FILE_BYTES_MAX for one in self._generations[-1].files)

    async def _rotate(self, *, everything: bool = False) -> None:
        """A new generation; with ``everything`` it starts with all that is not destaged, synced."""
        why: OSError | None = None
        while True:
            chosen = self._disks[: self._copies]
            if len(chosen) < self._copies:
                message = f"volume {self._volume}: {len(chosen)} devices left for its write log, {self._copies} needed"
                raise DiskFault(message) from why
            failed: list[Disk] = []
            files: list[_LogFile] = []
            self._number += 1
            for disk in chosen:
                try:
                    files.append(await self._create(disk))
                except OSError as error:
                    why = error
                    failed.append(disk)
            if not failed and everything:
                records: list[Buffer] = []
                for sequence, kind, offset, length, data in self._undestaged():
                    records += [logfile.encode_record(sequence, kind, offset, length, data), data]
                failed = [one.disk for one in await self._append(files, records)] if records else []
            if not failed:
                self._generations.append(_Generation(files, self.last_taken if everything else self._synced))
                return
            for one in files:
                await one.file.close()
            self._disks = [disk for disk in self._disks if disk not in failed]

    async def _create(self, disk: Disk) -> _LogFile:
        folder = log_folder(self._volume)
        await disk.make_dirs(folder)
        path = f"{folder}/{self._epoch:08x}-{self._number:08x}.log"
        file = await disk.open(path, OpenMode.CREATE)
        await file.append([logfile.encode_header(Header(self._epoch, self._volume))], sync=True)
        return _LogFile(disk, path, file)

    async def _append(self, files: Sequence[_LogFile], buffers: Sequence[Buffer]) -> list[_LogFile]:
        """To all files at once, synced; those that failed."""
        failed: list[_LogFile] = []

        async def one(target: _LogFile) -> None:
            try:
                await target.file.append(buffers, sync=True)
            except OSError:
                failed.append(target)

        async with trio.open_nursery() as nursery:
            for target in files:
                nursery.start_soon(one, target)
        return failed


def log_folder(volume: UUID) -> str:
    return f"volumes/{volume}"


async def _remove(files: Sequence[_LogFile]) -> None:
    for one in files:
        await one.file.close()
        await one.disk.unlink(one.path)


async def replay(disks: Iterable[Disk], volume: UUID, *, copies: int) -> list[Record]:
    """Every record found on any device, in order, once each.

    A record that was acknowledged is whole on ``copies`` devices, so what one of them holds is taken, and fewer than ``copies``
    devices may be unreadable, gone, or hold a file that is no log of ours.  Unavailable when more are: the log might be on just these.
    """
    found: dict[tuple[int, int], Record] = {}
    unknown: list[str] = []
    for disk in disks:
        try:
            for record in await _replay_device(disk, volume):
                found[record.sequence, record.offset] = record  # a log that moved holds pieces of a write
        except (OSError, FormatError) as error:
            unknown.append(f"{disk.root}: {error}")
    if len(unknown) >= copies:
        raise Unavailable(f"volume {volume}: its write log may be on devices that cannot be read: {'; '.join(unknown)}")
    return [found[key] for key in sorted(found)]


async def _replay_device(disk: Disk, volume: UUID) -> list[Record]:
    """OSError, FormatError."""
    if await disk.info("") is None:
        raise FileNotFoundError("the device's folder is not there")
    folder = log_folder(volume)
    if await disk.info(folder) is None:
        return []
    records: list[Record] = []
    for name in await disk.list_dir(folder):
        if not name.endswith(".log"):
            continue
        data = await disk.read_file(f"{folder}/{name}")
        if len(data) < logfile.HEADER_BYTES:
            continue  # torn at its creation, before anything could be acknowledged from it
        if logfile.decode_header(data).volume != volume:
            raise FormatError(f"{folder}/{name} belongs to another volume")
        records += logfile.decode_records(data)
    return records


async def remove_logs(disks: Iterable[Disk], volume: UUID, *, keep_epoch: int | None) -> None:
    """Remove the log files of all epochs but ``keep_epoch``.  What lies on a device that cannot be used now stays: all of it is
    in segments, so replaying it again changes nothing."""
    for disk in disks:
        folder = log_folder(volume)
        try:
            if await disk.info(folder) is None:
                continue
            for name in await disk.list_dir(folder):
                if keep_epoch is None or not name.startswith(f"{keep_epoch:08x}-"):
                    await disk.unlink(f"{folder}/{name}")
        except OSError:
            continue

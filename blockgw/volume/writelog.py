"""The write log of one volume on up to two devices: taken in RAM, made durable together, replayed after a crash.

``take`` copies a write into the buffer and gives it the next sequence number; ``sync`` returns when everything taken before it is
on all log devices.  One sync runs at a time and carries everything that waits (group commit).  When a device fails, the log moves:
a new file on the devices that are left (another one stands in where there is one) receives everything not yet destaged before
anybody is told that it is durable.  With fewer healthy devices than the policy asks for, sync raises DiskFault (DiskFull when that
is why); nothing taken is forgotten, the next sync tries all devices again and writes everything not yet destaged.

A sync is never cut off by cancellation: an initiator that goes away in the middle of its flush must not leave a gap in the log.

Files: ``volumes/<volume>/<epoch, 8 hex>-<number, 8 hex>.log`` below the device's root.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from uuid import UUID

import trio

from blockgw.volume import logfile
from blockgw.volume.logfile import Header, Kind, Record
from ring.errors import DiskFault, DiskFull, FormatError, Unavailable
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
        self._all_disks = list(disks)
        self._disks = list(disks)  # those that did not fail
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
        self._broken = False  # what was taken is in RAM only: the log has to move before it can be told durable
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
            if self._synced < wanted:
                with trio.CancelScope(shield=True):
                    await self._sync()

    async def _sync(self) -> None:
        if not self._broken and (not self._generations or self._full()):
            await self._rotate()
        if not self._broken:
            buffers, self._buffer, self._buffer_bytes = self._buffer, [], 0
            taken = self.last_taken
            generation = self._generations[-1]
            failed = await self._append(generation.files, buffers)
            if not failed:
                generation.last_sequence = self._synced = taken
                return
            self._broken = True
            self._disks = [disk for disk in self._disks if all(disk is not one.disk for one in failed)]
        await self._rotate(everything=True)
        self._broken = False

    async def destaged(self, sequence: int) -> None:
        """Segments hold everything up to ``sequence``: files that hold nothing newer go."""
        async with self._lock:
            for generation in [g for g in self._generations[:-1] if g.last_sequence <= sequence]:
                self._generations.remove(generation)
                await _close(generation.files, remove=True)

    async def close(self, *, remove: bool) -> None:
        """``remove``: everything is destaged and checkpointed."""
        async with self._lock:
            for generation in self._generations:
                await _close(generation.files, remove=remove)
            self._generations.clear()

    def _full(self) -> bool:
        return any(one.file.size() > FILE_BYTES_MAX for one in self._generations[-1].files)

    async def _rotate(self, *, everything: bool = False) -> None:
        """A new generation; with ``everything`` it starts with all that is not destaged, synced."""
        why: OSError | None = None
        if len(self._disks) < self._copies:
            self._disks = list(self._all_disks)  # one of them may be back
        while True:
            chosen = self._disks[: self._copies]
            if len(chosen) < self._copies:
                message = f"volume {self._volume}: {len(chosen)} devices left for its write log, {self._copies} needed"
                raise (DiskFull if why is not None and why.errno == errno.ENOSPC else DiskFault)(message) from why
            failed: list[Disk] = []
            files: list[_LogFile] = []
            self._number += 1
            for disk in chosen:
                try:
                    files.append(await self._create(disk))
                except OSError as error:
                    why = error
                    failed.append(disk)
            last = self._synced
            if not failed and everything:
                # What is only buffered is not destaged either, so it is among these.
                self._buffer, self._buffer_bytes, last = [], 0, self.last_taken
                records: list[Buffer] = []
                for sequence, kind, offset, length, data in self._undestaged():
                    records += [logfile.encode_record(sequence, kind, offset, length, data), data]
                failed = [one.disk for one in await self._append(files, records)] if records else []
            if not failed:
                self._generations.append(_Generation(files, last))
                self._synced = last
                return
            await _close(files, remove=True)
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


async def _close(files: Sequence[_LogFile], *, remove: bool) -> None:
    """What a failing device keeps is of an older epoch, or covered by segments, when it is seen again."""
    for one in files:
        try:
            await one.file.close()
            if remove:
                await one.disk.unlink(one.path)
        except OSError:
            continue


async def replay(disks: Iterable[Disk], volume: UUID, *, epoch: int, faults_max: int) -> list[Record]:
    """Every record of ``epoch`` found on any device, in order, once each.

    Only the epoch whose checkpoint the register names was ever served, so files of others hold nothing that was acknowledged and
    is not in that checkpoint.  A record that was acknowledged is whole on every log device, so with as many devices that cannot
    be read as the log has spare copies (``faults_max``) nothing is missed; Unavailable with more."""
    found: dict[tuple[int, int], Record] = {}
    faults: list[str] = []
    for disk in disks:
        try:
            records = await _records(disk, volume, epoch)
        except (OSError, FormatError) as error:
            faults.append(f"{disk.root}: {error}")
            continue
        for record in records:
            found[record.sequence, record.offset] = record  # a log that moved holds pieces of a write
    if len(faults) > faults_max:
        raise Unavailable(f"volume {volume}: its write log cannot be read: {'; '.join(faults)}")
    return [found[key] for key in sorted(found)]


async def _records(disk: Disk, volume: UUID, epoch: int) -> list[Record]:
    """Of the log files on one device.  OSError, FormatError."""
    folder = log_folder(volume)
    found: list[Record] = []
    if await disk.info(folder) is None:
        if await disk.info("") is None:
            raise FileNotFoundError(errno.ENOENT, "the device is missing")
        return found
    for name in await disk.list_dir(folder):
        if not name.endswith(".log") or not name.startswith(f"{epoch:08x}-"):
            continue
        data = await disk.read_file(f"{folder}/{name}")
        if len(data) <= logfile.HEADER_BYTES:
            continue  # without a record it is empty, and may be torn at its creation
        header = logfile.decode_header(data)
        if header.volume != volume or header.epoch != epoch:
            raise FormatError(f"{folder}/{name} belongs to epoch {header.epoch} of volume {header.volume}")
        found += logfile.decode_records(data)
    return found


async def remove_logs(disks: Iterable[Disk], volume: UUID, *, keep_epoch: int | None) -> None:
    """Remove the log files of all epochs but ``keep_epoch``.  What a failing device keeps is never replayed."""
    folder = log_folder(volume)
    for disk in disks:
        try:
            if await disk.info(folder) is None:
                continue
            for name in await disk.list_dir(folder):
                if keep_epoch is None or not name.startswith(f"{keep_epoch:08x}-"):
                    await disk.unlink(f"{folder}/{name}")
        except OSError:
            continue

"""The commit log at a start: every segment in order, and where the segments go when the tables have what they held.

Neighbours: log (the format), books (which applies the records).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Sequence

from ring.world.interface import Disk
from storage.rows.log import FOLDER, Decoded, decode_segment, log_path, sequence_of
from storage.rows.tables import BooksDevice

QUARANTINED = ".damaged"  # appended to the name of a log segment that is kept for people to look at


async def read_log(disk: Disk) -> AsyncIterator[tuple[int, Decoded]]:
    """(sequence number, segment) of each file, oldest first.  OSError as the disk gave it."""
    sequences = sorted(n for name in await disk.list_dir(FOLDER) if (n := sequence_of(name)) is not None)
    for sequence in sequences:
        data = await disk.read_file(log_path(sequence))
        yield sequence, decode_segment(data, sequence, last=sequence == sequences[-1])


async def put_away(device: BooksDevice, sequences: Sequence[int], damaged: Collection[int]) -> None:
    """Remove the segments that were applied; keep the damaged ones under another name.  That the device lacks something is written
    down first: the next start would not see it."""
    disk = device.disk
    if damaged:
        await device.lacks(f"{len(damaged)} segments of its books' log are damaged")
    for sequence in sequences:
        if sequence in damaged:
            await disk.rename(log_path(sequence), log_path(sequence) + QUARANTINED)
        else:
            await disk.unlink(log_path(sequence))

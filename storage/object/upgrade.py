"""Upgrade: what a device of an older version needs before this program writes to it.

Two kinds of change of a format, and what each takes:

- what is *read* from then on is new as well as old (packs 1, 2 and 3; a label without a disk's id): nothing is converted.  What is
  written from now on is new; compaction makes new segments of the old ones that it takes;
- what is a cache is made anew by whoever owns it (the index's tables, out of the log).

In both cases a program that only knows the old format must not come by afterwards: it would skip what it does not know.  So the
label is raised first, by atomic replacement, and says from then on the least that a program has to know.  Every step looks at what
is there and can be begun again, so a crash anywhere leaves a device that the next start goes on with; nothing else is changed
before the label is.

Before that, heads of all logs of the device are looked at: one that is newer than this program (a label that was brought back from
a backup) refuses the device, with nothing changed.

Neighbours: device (calls it), segment and storage.rows.log (what heads say), index (its own version).  Format:
docs/formats/device-label.md; what each format does: docs/formats/README.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from ring.errors import FormatError, NewerFormat
from ring.world.interface import Disk, OpenMode
from storage.object.segment import FOLDER as PACKS
from storage.object.segment import SEGMENT_HEAD_BYTES, SegmentHead, SegmentName
from storage.rows.log import FOLDER as ROWS
from storage.rows.log import LOG_HEAD_BYTES, decode_segment, log_path, sequence_of

if TYPE_CHECKING:
    from storage.object.device import Label


async def bring_up(disk: Disk, label: Label, path: str, formats: Mapping[str, int]) -> Label:
    """The label, which lies at ``path``, as it shall be for a program that writes ``formats``.  NewerFormat; OSError."""
    if all(label.formats.get(name, 0) == version for name, version in formats.items()):
        return label
    await _look(disk)
    raised = replace(label, formats={**label.formats, **formats})
    await disk.replace_file(path, raised.encode())
    return raised


async def _look(disk: Disk) -> None:
    """NewerFormat when a log of the device is newer than this program; that one is damaged is not our business here."""
    for name in await _names(disk, PACKS):
        if SegmentName.parse(name) is not None:
            data = await _head(disk, f"{PACKS}/{name}", SEGMENT_HEAD_BYTES)
            try:
                SegmentHead.decode(data)
            except NewerFormat as error:
                raise error.at(f"{PACKS}/{name}") from None
            except FormatError:
                continue
    for name in await _names(disk, ROWS):
        sequence = sequence_of(name)
        if sequence is not None:
            try:
                decode_segment(await _head(disk, log_path(sequence), LOG_HEAD_BYTES), sequence, last=True)
            except NewerFormat:
                raise
            except FormatError:
                continue


async def _names(disk: Disk, folder: str) -> list[str]:
    try:
        return await disk.list_dir(folder)
    except FileNotFoundError:
        return []


async def _head(disk: Disk, path: str, length: int) -> bytes:
    file = await disk.open(path, OpenMode.READ)
    try:
        return await file.pread(0, length)
    finally:
        await file.close()

"""Writes a cpio archive in the "newc" form that the kernel unpacks as an initramfs (Linux: "initramfs buffer format").

Pure: entries in, bytes out, the same bytes every time.
"""

from __future__ import annotations

import stat
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Entry:
    name: str  # without a leading "/"
    mode: int  # type and permissions, as in stat
    data: bytes = b""


def folder(name: str) -> Entry:
    return Entry(name, stat.S_IFDIR | 0o755)


def link(name: str, target: str) -> Entry:
    return Entry(name, stat.S_IFLNK | 0o777, target.encode())


def file(name: str, data: bytes, permissions: int = 0o644) -> Entry:
    return Entry(name, stat.S_IFREG | permissions, data)


def archive(entries: Iterable[Entry]) -> bytes:
    """Everything is owned by root and dated 1970."""
    out = bytearray()
    for number, entry in enumerate(entries, start=1):
        _add(out, number, entry)
    _add(out, 0, Entry("TRAILER!!!", 0))
    out += bytes(-len(out) % 512)
    return bytes(out)


def _add(out: bytearray, inode: int, entry: Entry) -> None:
    name = entry.name.encode() + b"\0"
    links = 2 if stat.S_ISDIR(entry.mode) else 1
    fields = (inode, entry.mode, 0, 0, links, 0, len(entry.data), 0, 0, 0, 0, len(name), 0)
    out += b"070701" + b"".join(b"%08x" % field for field in fields) + name
    out += bytes(-len(out) % 4)
    out += entry.data
    out += bytes(-len(out) % 4)

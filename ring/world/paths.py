"""Paths below a device's root, as every Disk takes them.  Pure.  Neighbours: real.disk, sim.disk."""

from __future__ import annotations

from ring.errors import BadInput


def split(path: str) -> list[str]:
    """The components of a relative path ("" is the root itself).  BadInput for what could leave the root."""
    if not path:
        return []
    parts = path.split("/")
    if any(part in ("", ".", "..") or "\0" in part for part in parts):
        raise BadInput(f"not a relative path below a device's root: {path!r}")
    return parts


def split_file(path: str) -> tuple[list[str], str]:
    """The folder's components and the last name."""
    parts = split(path)
    if not parts:
        raise BadInput("a file needs a name")
    return parts[:-1], parts[-1]

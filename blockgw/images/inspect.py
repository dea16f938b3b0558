"""Which disk format an image is in, from its first bytes.  Pure.  What refers to files outside of itself is refused."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from ring.errors import BadInput

HEAD_BYTES = 64 << 10


@dataclass(frozen=True, slots=True)
class Inspection:
    disk_format: str  # Glance's words
    virtual_size: int | None  # bytes of the disk inside; None: as large as the file


def inspect(head: bytes) -> Inspection:
    """``head``: the first HEAD_BYTES of the image, or all of it.  BadInput for a qcow2 with a backing or an external data file."""
    if head[:4] == b"QFI\xfb" and len(head) >= 32:
        version, backing = struct.unpack_from(">IQ", head, 4)
        (size,) = struct.unpack_from(">Q", head, 24)
        if backing:
            raise BadInput("the qcow2 image has a backing file", hint="flatten it: qemu-img convert -O qcow2")
        if version >= 3 and len(head) >= 80 and struct.unpack_from(">Q", head, 72)[0] & 0b100:
            raise BadInput("the qcow2 image keeps its data in another file", hint="flatten it: qemu-img convert -O qcow2")
        return Inspection("qcow2", size)
    if head[:4] == b"KDMV" and len(head) >= 20:
        return Inspection("vmdk", struct.unpack_from("<Q", head, 12)[0] * 512)
    if head[64:68] == b"\x7f\x10\xda\xbe" and len(head) >= 376:
        return Inspection("vdi", struct.unpack_from("<Q", head, 368)[0])
    if head[:8] == b"vhdxfile":
        return Inspection("vhdx", None)
    if head[:8] == b"conectix" and len(head) >= 56:
        return Inspection("vhd", struct.unpack_from(">Q", head, 48)[0])
    if head[32769:32774] == b"CD001":
        return Inspection("iso", None)
    return Inspection("raw", None)

"""What a logical unit says about itself: INQUIRY data, VPD pages, mode pages, capacity.  Pure.

Standards: SPC-4 6.6, 7.5, 7.8; SBC-3 6.4, 6.5.  All lengths in pages that initiators take as limits are blocks of 512 bytes.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from uuid import UUID

from .action import BLOCK_BYTES
from .cdb import COMMANDS, Command

VENDOR = b"RINGFORT"
PRODUCT = b"Volume".ljust(16)
REVISION = b"0001"

TRANSFER_BLOCKS_MAX = 8192  # 4 MiB a READ or WRITE
TRANSFER_BLOCKS_BEST = 2048
GRANULARITY_BLOCKS = 8  # 4 KiB: extents of a volume are best kept to it
UNMAP_BLOCKS_MAX = 1 << 20  # 512 MiB a descriptor list
UNMAP_RANGES_MAX = 256
WRITE_SAME_BLOCKS_MAX = TRANSFER_BLOCKS_MAX

_OUI = 0x025246  # a locally administered identifier, so it is nobody's; the rest is of the volume's uuid
_VERSIONS = (0x00A0, 0x0460, 0x04C0, 0x0960)  # SAM-5, SPC-4, SBC-3, iSCSI


@dataclass(frozen=True, slots=True)
class Identity:
    volume_id: UUID
    port: str  # the SCSI port's name: an iSCSI target's is "<iqn>,t,0x<portal group tag>"


def standard_inquiry(qualifier: int = 0, device_type: int = 0) -> bytes:
    """96 bytes.  ``qualifier`` 1: nothing is connected here now, 3: nothing can be."""
    head = bytes((qualifier << 5 | device_type, 0, 6, 0x12, 91, 0, 0, 0x02))
    versions = struct.pack(">4H", *_VERSIONS)
    return (head + VENDOR + PRODUCT + REVISION).ljust(58, b"\0") + versions.ljust(38, b"\0")


def vpd_page(code: int, identity: Identity) -> bytes | None:
    """One of the pages 00, 80, 83, 86, B0, B1, B2; None for others."""
    body = _vpd_body(code, identity)
    return None if body is None else struct.pack(">BBH", 0, code, len(body)) + body


def _vpd_body(code: int, identity: Identity) -> bytes | None:
    match code:
        case 0x00:
            return bytes((0x00, 0x80, 0x83, 0x86, 0xB0, 0xB1, 0xB2))
        case 0x80:
            return str(identity.volume_id).encode()
        case 0x83:
            return _identification(identity)
        case 0x86:  # SIMPLE, ORDERED and HEAD OF QUEUE; a volatile cache
            return bytes((0, 0x07, 0x01)).ljust(60, b"\0")
        case 0xB0:
            limits = (1, 0, GRANULARITY_BLOCKS, TRANSFER_BLOCKS_MAX, TRANSFER_BLOCKS_BEST, 0)  # 1: WRITE SAME has no "to the end"
            unmap = (UNMAP_BLOCKS_MAX, UNMAP_RANGES_MAX, GRANULARITY_BLOCKS, 1 << 31, WRITE_SAME_BLOCKS_MAX)
            return struct.pack(">BBHIIIIIIIQ", *limits, *unmap).ljust(60, b"\0")
        case 0xB1:
            return struct.pack(">H", 1).ljust(60, b"\0")  # does not rotate
        case 0xB2:  # UNMAP, WRITE SAME (16) and (10) unmap; unmapped blocks read as zeroes; thin
            return bytes((0, 0xE4, 2, 0))
        case _:
            return None


def naa(volume_id: UUID) -> bytes:
    """NAA IEEE Registered Extended, 16 bytes: 6, the identifier, 100 bits of the uuid."""
    return (6 << 124 | _OUI << 100 | volume_id.int & (1 << 100) - 1).to_bytes(16, "big")


def _identification(identity: Identity) -> bytes:
    vendor = VENDOR + identity.volume_id.hex.encode()
    port = identity.port.encode() + b"\0"
    port += bytes(-len(port) % 4)
    return b"".join(
        (
            struct.pack(">BBxB", 0x01, 0x03, 16) + naa(identity.volume_id),  # binary; logical unit, NAA
            struct.pack(">BBxB", 0x02, 0x01, len(vendor)) + vendor,  # ASCII; logical unit, T10 vendor id
            struct.pack(">BBxBHH", 0x51, 0x94, 4, 0, 1),  # iSCSI; target port, relative port 1
            struct.pack(">BBxBHH", 0x51, 0x95, 4, 0, 1),  # iSCSI; target port, port group 1
            struct.pack(">BBxB", 0x53, 0x98, len(port)) + port,  # iSCSI, UTF-8; target port, SCSI name
        )
    )


def capacity_10(blocks: int) -> bytes:
    return struct.pack(">II", min(blocks - 1, 0xFFFFFFFF), BLOCK_BYTES)


def capacity_16(blocks: int) -> bytes:
    """32 bytes: 512-byte blocks, 8 to a physical one, thin (LBPME), zeroes where unmapped (LBPRZ)."""
    return struct.pack(">QIBBH", blocks - 1, BLOCK_BYTES, 0, 3, 0xC000).ljust(32, b"\0")


def lba_status(runs: list[tuple[int, int, bool]]) -> bytes:
    """GET LBA STATUS parameter data (SBC-3 5.4): LBA, blocks, mapped of each run."""
    body = b"".join(struct.pack(">QIB3x", lba, blocks, 0 if mapped else 1) for lba, blocks, mapped in runs)
    return struct.pack(">I4x", len(body) + 4) + body


_MODE_PAGES = {
    # code: current and default value, changeable bits (none)
    0x08: bytes((0x08, 18, 0x04)).ljust(20, b"\0"),  # caching: WCE=1
    0x0A: bytes((0x0A, 10, 0x02, 0x10)).ljust(12, b"\0"),  # control: GLTSD=1, unrestricted reordering, D_SENSE=0
}


def mode_pages(page: int, subpage: int, *, changeable: bool) -> bytes | None:
    """The pages asked for, one after another; None when there is no such page."""
    if subpage not in (0, 0xFF):
        return None
    if page == 0x3F:
        codes = sorted(_MODE_PAGES)
    elif page in _MODE_PAGES and subpage == 0:
        codes = [page]
    else:
        return None
    values = [_MODE_PAGES[code] for code in codes]
    return b"".join(value[:2] + bytes(len(value) - 2) if changeable else value for value in values)


def mode_data_6(pages: bytes, blocks: int, *, descriptor: bool) -> bytes:
    block = _block_descriptor(blocks) if descriptor else b""
    return bytes((3 + len(block) + len(pages), 0, 0x10, len(block))) + block + pages  # 0x10: DPO and FUA are understood


def mode_data_10(pages: bytes, blocks: int, *, descriptor: bool) -> bytes:
    block = _block_descriptor(blocks) if descriptor else b""
    return struct.pack(">HBBHH", 6 + len(block) + len(pages), 0, 0x10, 0, len(block)) + block + pages


def _block_descriptor(blocks: int) -> bytes:
    return struct.pack(">II", min(blocks, 0xFFFFFFFF), BLOCK_BYTES)


# ---- REPORT SUPPORTED OPERATION CODES (SPC-4 6.35)

_TIMEOUTS = struct.pack(">HxxII", 10, 0, 0)


def all_commands(*, timeouts: bool) -> bytes:
    body = b"".join(_descriptor(command, timeouts=timeouts) for command in COMMANDS)
    return struct.pack(">I", len(body)) + body


def _descriptor(command: Command, *, timeouts: bool) -> bytes:
    flags = timeouts << 1 | (command.service_action is not None)
    head = struct.pack(">BxHxBH", command.opcode, command.service_action or 0, flags, len(command.usage))
    return head + _TIMEOUTS if timeouts else head


def one_command(command: Command | None, *, timeouts: bool) -> bytes:
    if command is None:
        return struct.pack(">xBH", 0x01, 0)  # not supported
    head = struct.pack(">xBH", timeouts << 7 | 0x03, len(command.usage))
    return head + command.usage + (_TIMEOUTS if timeouts else b"")

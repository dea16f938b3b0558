"""The commands that are served: operation codes, the bits of each that are understood, and how to encode and decode them.  Pure.

``COMMANDS`` is the one table: unit.py dispatches by it, REPORT SUPPORTED OPERATION CODES prints it, and ``forbidden`` makes of
each bitmap the bits that must be zero.  A bit that is set and not served (protection, NACA, ANCHOR, group numbers, ...)
is INVALID FIELD IN CDB, so that nothing is ever half done.

Standards: SPC-4 6 and SBC-3 5 for the layouts.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

TEST_UNIT_READY = 0x00
REQUEST_SENSE = 0x03
READ_6 = 0x08
WRITE_6 = 0x0A
INQUIRY = 0x12
MODE_SENSE_6 = 0x1A
START_STOP_UNIT = 0x1B
READ_CAPACITY_10 = 0x25
READ_10 = 0x28
WRITE_10 = 0x2A
VERIFY_10 = 0x2F
SYNCHRONIZE_CACHE_10 = 0x35
WRITE_SAME_10 = 0x41
UNMAP = 0x42
MODE_SENSE_10 = 0x5A
READ_16 = 0x88
WRITE_16 = 0x8A
VERIFY_16 = 0x8F
SYNCHRONIZE_CACHE_16 = 0x91
WRITE_SAME_16 = 0x93
SERVICE_ACTION_IN_16 = 0x9E
REPORT_LUNS = 0xA0
MAINTENANCE_IN = 0xA3
READ_12 = 0xA8
WRITE_12 = 0xAA
VERIFY_12 = 0xAF

READ_CAPACITY_16, GET_LBA_STATUS = 0x10, 0x12  # service actions of SERVICE_ACTION_IN_16
REPORT_SUPPORTED_OPERATION_CODES = 0x0C  # service action of MAINTENANCE_IN

DPO, FUA, BYTCHK, WS_UNMAP, NDOB = 0x10, 0x08, 0x02, 0x08, 0x01  # byte 1


@dataclass(frozen=True, slots=True)
class Command:
    name: str
    usage: bytes  # CDB usage data (SPC-4 6.35.3): first the code, then a one for every bit that is understood
    service_action: int | None = None

    @property
    def opcode(self) -> int:
        return self.usage[0]

    @property
    def forbidden(self) -> int:
        """The bits that must be zero, in a CDB padded to 16 bytes, as one integer."""
        allowed = bytearray(self.usage)
        allowed[0] = 0xFF
        if self.service_action is not None:
            allowed[1] |= 0x1F
        return int.from_bytes(bytes(byte ^ 0xFF for byte in allowed).ljust(16, b"\0"), "big")


def _command(name: str, usage: str, service_action: int | None = None) -> Command:
    return Command(name, bytes.fromhex(usage), service_action)


COMMANDS = (
    _command("TEST UNIT READY", "00 00 00 00 00 00"),
    _command("REQUEST SENSE", "03 00 00 00 ff 00"),
    _command("READ(6)", "08 1f ff ff ff 00"),
    _command("WRITE(6)", "0a 1f ff ff ff 00"),
    _command("INQUIRY", "12 01 ff ff ff 00"),
    _command("MODE SENSE(6)", "1a 08 ff ff ff 00"),
    _command("START STOP UNIT", "1b 01 00 00 01 00"),
    _command("READ CAPACITY(10)", "25 00 00 00 00 00 00 00 00 00"),
    _command("READ(10)", "28 18 ff ff ff ff 00 ff ff 00"),
    _command("WRITE(10)", "2a 18 ff ff ff ff 00 ff ff 00"),
    _command("VERIFY(10)", "2f 12 ff ff ff ff 00 ff ff 00"),
    _command("SYNCHRONIZE CACHE(10)", "35 02 ff ff ff ff 00 ff ff 00"),
    _command("WRITE SAME(10)", "41 08 ff ff ff ff 00 ff ff 00"),
    _command("UNMAP", "42 00 00 00 00 00 00 ff ff 00"),
    _command("MODE SENSE(10)", "5a 18 ff ff 00 00 00 ff ff 00"),
    _command("READ(16)", "88 18 ff ff ff ff ff ff ff ff ff ff ff ff 00 00"),
    _command("WRITE(16)", "8a 18 ff ff ff ff ff ff ff ff ff ff ff ff 00 00"),
    _command("VERIFY(16)", "8f 12 ff ff ff ff ff ff ff ff ff ff ff ff 00 00"),
    _command("SYNCHRONIZE CACHE(16)", "91 02 ff ff ff ff ff ff ff ff ff ff ff ff 00 00"),
    _command("WRITE SAME(16)", "93 09 ff ff ff ff ff ff ff ff ff ff ff ff 00 00"),
    _command("READ CAPACITY(16)", "9e 10 00 00 00 00 00 00 00 00 ff ff ff ff 00 00", READ_CAPACITY_16),
    _command("GET LBA STATUS", "9e 12 ff ff ff ff ff ff ff ff ff ff ff ff 00 00", GET_LBA_STATUS),
    _command("REPORT LUNS", "a0 00 ff 00 00 00 ff ff ff ff 00 00"),
    _command("REPORT SUPPORTED OPERATION CODES", "a3 0c 87 ff ff ff ff ff ff ff 00 00", REPORT_SUPPORTED_OPERATION_CODES),
    _command("READ(12)", "a8 18 ff ff ff ff ff ff ff ff 00 00"),
    _command("WRITE(12)", "aa 18 ff ff ff ff ff ff ff ff 00 00"),
    _command("VERIFY(12)", "af 12 ff ff ff ff ff ff ff ff 00 00"),
)

_EXTENT_6 = struct.Struct(">xBHB")
_EXTENT_10 = struct.Struct(">xBIxH")
_EXTENT_12 = struct.Struct(">xBII")
_EXTENT_16 = struct.Struct(">xBQI")


def decode_extent_6(cdb: bytes) -> tuple[int, int, int]:
    """Byte 1 (no flags here: 0), LBA, blocks (0 means 256)."""
    high, low, blocks = _EXTENT_6.unpack_from(cdb)
    return 0, (high & 0x1F) << 16 | low, blocks or 256


decode_extent_10 = _EXTENT_10.unpack_from  # byte 1, LBA, blocks
decode_extent_12 = _EXTENT_12.unpack_from
decode_extent_16 = _EXTENT_16.unpack_from


def encode_extent(opcode: int, lba: int, blocks: int, flags: int = 0) -> bytes:
    """A CDB of one of the commands with an LBA and a length, padded to 16 bytes; ``flags`` is byte 1."""
    match opcode >> 5:
        case 0:
            cdb = struct.pack(">BBHBx", opcode, lba >> 16, lba & 0xFFFF, blocks & 0xFF)
        case 1 | 2:
            cdb = struct.pack(">BBIxHx", opcode, flags, lba, blocks)
        case 4:
            cdb = struct.pack(">BBQIxx", opcode, flags, lba, blocks)
        case 5:
            cdb = struct.pack(">BBIIxx", opcode, flags, lba, blocks)
        case _:
            raise ValueError(f"no such group of commands: {opcode:#x}")
    return cdb.ljust(16, b"\0")


def encode_inquiry(length: int, page: int | None = None) -> bytes:
    return struct.pack(">BBBHx", INQUIRY, page is not None, page or 0, length).ljust(16, b"\0")


def encode_mode_sense_6(page: int, length: int, *, subpage: int = 0, flags: int = 0) -> bytes:
    return bytes((MODE_SENSE_6, flags, page, subpage, length, 0)).ljust(16, b"\0")


def encode_mode_sense_10(page: int, length: int, *, subpage: int = 0, flags: int = 0) -> bytes:
    return struct.pack(">BBBB3xHx", MODE_SENSE_10, flags, page, subpage, length).ljust(16, b"\0")


def encode_report_luns(length: int, select: int = 0) -> bytes:
    return struct.pack(">BxB3xIxx", REPORT_LUNS, select, length).ljust(16, b"\0")


def encode_read_capacity_16(length: int) -> bytes:
    return struct.pack(">BB8xIxx", SERVICE_ACTION_IN_16, READ_CAPACITY_16, length)


def encode_get_lba_status(lba: int, length: int) -> bytes:
    return struct.pack(">BBQIxx", SERVICE_ACTION_IN_16, GET_LBA_STATUS, lba, length)


def encode_unmap(length: int) -> bytes:
    return struct.pack(">B6xHx", UNMAP, length).ljust(16, b"\0")


def encode_report_supported(options: int, opcode: int, service_action: int, length: int) -> bytes:
    fields = (MAINTENANCE_IN, REPORT_SUPPORTED_OPERATION_CODES, options, opcode, service_action, length)
    return struct.pack(">BBBBHIxx", *fields).ljust(16, b"\0")


def encode_unmap_list(ranges: list[tuple[int, int]]) -> bytes:
    """UNMAP's parameter list: (LBA, blocks) each."""
    body = b"".join(struct.pack(">QI4x", lba, blocks) for lba, blocks in ranges)
    return struct.pack(">HH4x", len(body) + 6, len(body)) + body

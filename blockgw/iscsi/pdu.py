"""PDUs: headers as structs, and the Framer that cuts a byte stream into (header, data segment) pairs.  Pure.

A header is kept as its 48 bytes; each kind has one struct below that packs or unpacks all of it (RFC 7143 11).
Additional header segments (long CDBs, bidirectional commands) are not served and refused.  A PDU's length is checked before its
bytes are awaited, so that what is held is at most one PDU of the agreed size.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from ring.errors import FormatError
from ring.world.interface import Buffer

from .crc32c import digest

HEADER_BYTES = 48
NO_TAG = 0xFFFFFFFF
MASK = 0xFFFFFFFF

# opcodes of an initiator
NOP_OUT, SCSI_COMMAND, TASK_MANAGEMENT, LOGIN, TEXT, DATA_OUT, LOGOUT, SNACK = 0x00, 0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x10
# of a target
NOP_IN, SCSI_RESPONSE, TASK_MANAGEMENT_RESPONSE, LOGIN_RESPONSE = 0x20, 0x21, 0x22, 0x23
TEXT_RESPONSE, DATA_IN, LOGOUT_RESPONSE, R2T, REJECT = 0x24, 0x25, 0x26, 0x31, 0x3F

IMMEDIATE = 0x40  # in byte 0
FINAL, READS, WRITES, ATTRIBUTES = 0x80, 0x40, 0x20, 0x07  # byte 1 of a SCSI command
TRANSIT, CONTINUES = 0x80, 0x40  # byte 1 of a login; CONTINUES also of a text request

ORDERED, HEAD_OF_QUEUE = 2, 3  # task attributes

# Every field in order; "length" is TotalAHSLength and DataSegmentLength in one word.
COMMAND = struct.Struct(">BB6x8sIIII16s")  # opcode, flags, lun, itt, expected length, CmdSN, ExpStatSN, cdb
DATA_OUT_HEADER = struct.Struct(">BB6x8sII4xI4xII4x")  # opcode, flags, lun, itt, ttt, ExpStatSN, DataSN, offset
REQUEST = struct.Struct(">BBxxI8sIIIIIIxxxxxxxx")  # opcode, flags, length, lun, itt, word 20, CmdSN, ExpStatSN, words 32 and 36
LOGIN_REQUEST = struct.Struct(">BBBBI6sHIHxxII16x")  # opcode, flags, max, min, length, isid, tsih, itt, cid, CmdSN, ExpStatSN

RESPONSE = struct.Struct(
    ">BBBBI8xI4xIIIIII"
)  # opcode, flags, response, status, length, itt, StatSN, Exp, Max, ExpDataSN, 0, residual
DATA_IN_HEADER = struct.Struct(
    ">BBxBI8xIIIIIIII"
)  # opcode, flags, status, length, itt, ttt, StatSN, Exp, Max, DataSN, offset, residual
R2T_HEADER = struct.Struct(">BB6x8sIIIIIIII")  # opcode, flags, lun, itt, ttt, StatSN, Exp, Max, R2TSN, offset, length
REPLY = struct.Struct(">BBBxI8sIIIIIIII")  # opcode, flags, response, length, lun, itt, word 20, StatSN, Exp, Max, words 36 to 44
LOGIN_REPLY = struct.Struct(
    ">BBBBI6sHI4xIIIBB10x"
)  # opcode, flags, max, active, length, isid, tsih, itt, Stat, Exp, Max, class, detail

_LENGTH = struct.Struct(">I")


class ProtocolError(FormatError):
    """The peer broke the protocol: the connection ends."""


class Framer:
    """Cuts what is received into PDUs.

    ``feed`` is a generator: a caller may stop between two PDUs and take ``rest`` elsewhere (after the last login PDU)."""

    def __init__(self, segment_max: int, *, header_digest: bool = False, data_digest: bool = False) -> None:
        self._segment_max = segment_max
        self._header_digest = header_digest
        self._data_digest = data_digest
        self._head = HEADER_BYTES + 4 * header_digest
        self._parts: list[bytes] = []
        self._held = 0  # bytes in parts
        self.wanted = self._head  # bytes until the next PDU is whole, if nothing else comes
        self._data = b""
        self._position = 0

    def feed(self, data: bytes) -> Iterator[tuple[bytes, Buffer]]:
        """The PDUs that are whole now: header and data segment (a view into what was received).  ProtocolError."""
        if self._held:
            self._parts.append(data)
            self._held += len(data)
            if len(data) < self.wanted:
                self.wanted -= len(data)
                return
            data = b"".join(self._parts)
            self._parts.clear()
            self._held = 0
        view, position, size, head = memoryview(data), 0, len(data), self._head
        self._data = data
        while True:
            need = head
            if size - position < need:
                break
            word = _LENGTH.unpack_from(data, position + 4)[0]
            if word > self._segment_max:
                self._refuse(word)
            if word:
                need += (word + 3 & ~3) + 4 * self._data_digest
                if size - position < need:
                    break
            header = data[position : position + HEADER_BYTES]
            start = position + head
            if self._header_digest and digest(header) != data[position + HEADER_BYTES : start]:
                raise ProtocolError("header digest")
            if self._data_digest and word:
                end = start + (word + 3 & ~3)
                if digest(view[start:end]) != data[end : end + 4]:
                    raise ProtocolError("data digest")
            position += need
            self._position = position
            yield header, view[start : start + word] if word else b""
        self.wanted = need - (size - position)
        self._data, self._position = b"", 0
        if position < size:
            self._parts.append(data[position:])
            self._held = size - position

    def _refuse(self, word: int) -> None:
        if word >> 24:
            raise ProtocolError("additional header segments are not served")
        raise ProtocolError(f"a data segment of {word} bytes, {self._segment_max} were agreed")

    def rest(self) -> bytes:
        """What was received and not yet given out, when feed was left before its end."""
        data, self._data = self._data[self._position :], b""
        self._position = 0
        return data


def pad(data: Buffer) -> bytes:
    """The zero bytes up to a multiple of four."""
    return bytes(-len(data) % 4)

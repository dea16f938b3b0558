"""Statuses and sense data (SAM-5 5.3, SPC-4 4.5).  Pure.

Fixed format only: the control mode page says D_SENSE=0.  ``sense_of`` words the errors of a BlockDevice.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from ring.errors import Conflict, DiskFault, DiskFull, RingfortError, Unavailable

GOOD = 0x00
CHECK_CONDITION = 0x02
TASK_SET_FULL = 0x28

_FIXED = struct.Struct(">BxBxxxxBxxxxBBxxxx")


@dataclass(frozen=True, slots=True)
class Sense:
    key: int
    asc: int
    ascq: int

    def encode(self) -> bytes:
        """18 bytes: current error, fixed format."""
        return _FIXED.pack(0x70, self.key, 10, self.asc, self.ascq)

    def __str__(self) -> str:
        return f"{self.key:x}/{self.asc:02x}/{self.ascq:02x}"


def decode(data: bytes) -> Sense:
    """The reverse of ``Sense.encode``, for initiators and tests."""
    _, key, _, asc, ascq = _FIXED.unpack_from(data)
    return Sense(key & 0x0F, asc, ascq)


NO_SENSE = Sense(0x0, 0x00, 0x00)
BECOMING_READY = Sense(0x2, 0x04, 0x01)
WRITE_ERROR = Sense(0x3, 0x0C, 0x00)
READ_ERROR = Sense(0x3, 0x11, 0x00)
INTERNAL_FAILURE = Sense(0x4, 0x44, 0x00)
PARAMETER_LIST_LENGTH_ERROR = Sense(0x5, 0x1A, 0x00)
INVALID_OPERATION_CODE = Sense(0x5, 0x20, 0x00)
LBA_OUT_OF_RANGE = Sense(0x5, 0x21, 0x00)
INVALID_FIELD_IN_CDB = Sense(0x5, 0x24, 0x00)
LOGICAL_UNIT_NOT_SUPPORTED = Sense(0x5, 0x25, 0x00)
INVALID_FIELD_IN_PARAMETER_LIST = Sense(0x5, 0x26, 0x00)
SAVING_NOT_SUPPORTED = Sense(0x5, 0x39, 0x00)
POWER_ON = Sense(0x6, 0x29, 0x00)  # "power on, reset or bus device reset": the code that initiators retry after
DEVICE_RESET = Sense(0x6, 0x29, 0x03)
SPACE_ALLOCATION_FAILED = Sense(0x7, 0x27, 0x07)
MISCOMPARE = Sense(0xE, 0x1D, 0x00)


def sense_of(error: RingfortError, *, writing: bool) -> Sense:
    """How an initiator is told.  NOT READY is what it retries: nothing was changed for certain."""
    match error:
        case DiskFull():
            return SPACE_ALLOCATION_FAILED
        case DiskFault():
            return WRITE_ERROR if writing else READ_ERROR
        case Unavailable():
            return BECOMING_READY
        case Conflict():  # another gateway holds the volume now: nothing will ever be written here again
            return WRITE_ERROR if writing else READ_ERROR
        case _:
            return INTERNAL_FAILURE

"""Nexus: one initiator's view of a target with one logical unit: LUN addresses, REPORT LUNS, unit attentions.  Pure.

When the data is not at LUN 0, LUN 0 still answers well (peripheral qualifier 1), because initiators look there first.
Every other LUN answers INQUIRY with qualifier 3 and all else with LOGICAL UNIT NOT SUPPORTED.

Neighbours: unit.py (a LUN's commands), blockgw.iscsi.session (one Nexus each).  Standards: SAM-5 4.7 and 5.14, SPC-4 6.33.
"""

from __future__ import annotations

import struct

from . import cdb as op
from .action import Action, Done, refuse
from .cdb import COMMANDS
from .pages import standard_inquiry
from .sense import INVALID_FIELD_IN_CDB, LOGICAL_UNIT_NOT_SUPPORTED, POWER_ON, Sense
from .unit import LogicalUnit

_REPORT_LUNS_FORBIDDEN = next(c.forbidden for c in COMMANDS if c.opcode == op.REPORT_LUNS)
_UNATTENDED = frozenset((op.INQUIRY, op.REPORT_LUNS, op.REQUEST_SENSE))  # these do not report a unit attention as status


def encode_lun(lun: int) -> bytes:
    """8 bytes: peripheral addressing below 256, else flat space (SAM-5 4.7.7)."""
    assert 0 <= lun < 1 << 14
    return struct.pack(">H6x", lun if lun < 256 else 0x4000 | lun)


def decode_lun(address: bytes) -> int | None:
    """None when it is not of one level."""
    first = address[0] << 8 | address[1]
    if any(address[2:]) or first >> 14 > 1 or (first >> 14 == 0 and first > 255):
        return None
    return first & 0x3FFF


class Nexus:
    """``start`` is called once for each command, in order."""

    def __init__(self, unit: LogicalUnit, lun: int = 1) -> None:
        self._unit = unit
        self._lun = lun
        self._address = encode_lun(lun)
        self._attentions: list[Sense] = [POWER_ON]

    def has(self, address: bytes) -> bool:
        """Is this the logical unit's address?"""
        return address == self._address or decode_lun(address) == self._lun

    def attend(self, sense: Sense) -> None:
        """Establish a unit attention; once, until it was told."""
        if sense not in self._attentions:
            self._attentions.append(sense)

    def start(self, address: bytes, cdb: bytes) -> Action:
        opcode = cdb[0]
        if opcode == op.REPORT_LUNS:
            return self._report_luns(cdb)
        if address != self._address and decode_lun(address) != self._lun:
            return _absent(decode_lun(address), cdb)
        if self._attentions and opcode not in _UNATTENDED:
            return refuse(self._attentions.pop(0))
        if self._attentions and opcode == op.REQUEST_SENSE:
            return Done(self._attentions.pop(0).encode()[: cdb[4]])
        return self._unit.start(cdb)

    def _report_luns(self, cdb: bytes) -> Action:
        allocation = int.from_bytes(cdb[6:10], "big")
        if int.from_bytes(cdb, "big") & _REPORT_LUNS_FORBIDDEN or cdb[2] > 2 or allocation < 16:
            return refuse(INVALID_FIELD_IN_CDB)
        luns = b"" if cdb[2] == 1 else self._address  # 1: well known logical units, of which there are none
        return Done((struct.pack(">I4x", len(luns)) + luns)[:allocation])


def _absent(lun: int | None, cdb: bytes) -> Action:
    allocation = cdb[3] << 8 | cdb[4]
    match cdb[0]:
        case op.INQUIRY if cdb[1] or cdb[2]:
            return refuse(INVALID_FIELD_IN_CDB)
        case op.INQUIRY:
            return Done(standard_inquiry(1 if lun == 0 else 3, 0x1F)[:allocation])
        case op.REQUEST_SENSE:
            return Done(LOGICAL_UNIT_NOT_SUPPORTED.encode()[: cdb[4]])
        case _:
            return refuse(LOGICAL_UNIT_NOT_SUPPORTED)

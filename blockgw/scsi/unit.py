"""LogicalUnit: CDB in, Action out.  Pure; it performs nothing and knows no transport.

The table of cdb.py gives the bits that must be zero, the methods below the rest: bounds, limits, and what to do.  Everything
unknown is INVALID COMMAND OPERATION CODE.

Neighbours: action.py (what comes out), pages.py (answers), nexus.py (LUN addressing and unit attentions, in front of this).
Standards: SPC-4 and SBC-3.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

from . import cdb as op
from .action import BLOCK_BYTES, Action, Check, Compare, Discard, Done, Fill, Flush, Parameters, Read, Write, refuse
from .pages import (
    TRANSFER_BLOCKS_MAX,
    UNMAP_BLOCKS_MAX,
    UNMAP_RANGES_MAX,
    WRITE_SAME_BLOCKS_MAX,
    Identity,
    all_commands,
    capacity_10,
    capacity_16,
    lba_status,
    mode_data_6,
    mode_data_10,
    mode_pages,
    one_command,
    standard_inquiry,
    vpd_page,
)
from .sense import (
    INVALID_FIELD_IN_CDB,
    INVALID_FIELD_IN_PARAMETER_LIST,
    INVALID_OPERATION_CODE,
    LBA_OUT_OF_RANGE,
    NO_SENSE,
    PARAMETER_LIST_LENGTH_ERROR,
    SAVING_NOT_SUPPORTED,
)

Handler = Callable[[bytes], Action]
Extent = Callable[[bytes], tuple[int, int, int]]

LBA_STATUS_RUNS_MAX = 64
_ZERO_BLOCK = bytes(BLOCK_BYTES)
_ALLOCATION_32 = struct.Struct(">6xI")
_RANGE = struct.Struct(">QI4x")


class LogicalUnit:
    """One direct-access block device of ``size`` bytes."""

    def __init__(self, size: int, identity: Identity, run_at: Callable[[int], tuple[int, bool]] | None = None) -> None:
        """``run_at``: of a MappedDevice; without it all is mapped (or unknown)."""
        self.blocks = size // BLOCK_BYTES
        self._identity = identity
        self._run_at = run_at
        handlers: dict[str, Handler] = {
            "TEST UNIT READY": lambda cdb: Done(),
            "REQUEST SENSE": lambda cdb: Done(NO_SENSE.encode()[: cdb[4]]),
            "INQUIRY": self._inquiry,
            "MODE SENSE(6)": self._mode_sense_6,
            "MODE SENSE(10)": self._mode_sense_10,
            "START STOP UNIT": lambda cdb: Done() if cdb[4] & 1 else refuse(INVALID_FIELD_IN_CDB),  # it is never stopped
            "READ CAPACITY(10)": lambda cdb: Done(capacity_10(self.blocks)),
            "READ CAPACITY(16)": lambda cdb: Done(capacity_16(self.blocks)[: int.from_bytes(cdb[10:14], "big")]),
            "GET LBA STATUS": self._get_lba_status,
            "REPORT SUPPORTED OPERATION CODES": self._report_supported,
            "UNMAP": self._unmap,
        }
        layouts: dict[int, Extent] = {
            6: op.decode_extent_6,
            10: op.decode_extent_10,
            12: op.decode_extent_12,
            16: op.decode_extent_16,
        }
        for length, extent in layouts.items():
            handlers[f"READ({length})"] = _bound(self._read, extent)
            handlers[f"WRITE({length})"] = _bound(self._write, extent)
            handlers[f"VERIFY({length})"] = _bound(self._verify, extent)
            handlers[f"SYNCHRONIZE CACHE({length})"] = _bound(self._synchronize, extent)
            handlers[f"WRITE SAME({length})"] = _bound(self._write_same, extent)
        self._plain: dict[int, tuple[int, Handler]] = {}
        self._services: dict[tuple[int, int], tuple[int, Handler]] = {}
        for command in op.COMMANDS:
            if command.name == "REPORT LUNS":
                continue  # the nexus answers it
            entry = command.forbidden, handlers[command.name]
            if command.service_action is None:
                self._plain[command.opcode] = entry
            else:
                self._services[command.opcode, command.service_action] = entry

    def start(self, cdb: bytes) -> Action:
        """What the command of 16 bytes (shorter ones padded) asks for."""
        entry = self._plain.get(cdb[0]) or self._services.get((cdb[0], cdb[1] & 0x1F))
        if entry is None:
            return refuse(INVALID_OPERATION_CODE)
        forbidden, handler = entry
        if int.from_bytes(cdb, "big") & forbidden:
            return refuse(INVALID_FIELD_IN_CDB)
        return handler(cdb)

    # ---- the medium

    def _read(self, flags: int, lba: int, blocks: int) -> Action:
        if lba + blocks > self.blocks:
            return refuse(LBA_OUT_OF_RANGE)
        if blocks > TRANSFER_BLOCKS_MAX:
            return refuse(INVALID_FIELD_IN_CDB)
        if not blocks:
            return Done()
        return Read(lba * BLOCK_BYTES, blocks * BLOCK_BYTES, flags & op.FUA != 0)

    def _write(self, flags: int, lba: int, blocks: int) -> Action:
        if lba + blocks > self.blocks:
            return refuse(LBA_OUT_OF_RANGE)
        if blocks > TRANSFER_BLOCKS_MAX:
            return refuse(INVALID_FIELD_IN_CDB)
        if not blocks:
            return Done()
        return Write(lba * BLOCK_BYTES, blocks * BLOCK_BYTES, flags & op.FUA != 0)

    def _verify(self, flags: int, lba: int, blocks: int) -> Action:
        if lba + blocks > self.blocks:
            return refuse(LBA_OUT_OF_RANGE)
        if blocks > TRANSFER_BLOCKS_MAX:
            return refuse(INVALID_FIELD_IN_CDB)
        if not blocks:
            return Done()
        if flags & op.BYTCHK:
            return Compare(lba * BLOCK_BYTES, blocks * BLOCK_BYTES)
        return Check(lba * BLOCK_BYTES, blocks * BLOCK_BYTES)

    def _synchronize(self, flags: int, lba: int, blocks: int) -> Action:
        return refuse(LBA_OUT_OF_RANGE) if lba + blocks > self.blocks else Flush()

    def _write_same(self, flags: int, lba: int, blocks: int) -> Action:
        if not blocks:
            return refuse(INVALID_FIELD_IN_CDB)  # WSNZ
        if lba + blocks > self.blocks:
            return refuse(LBA_OUT_OF_RANGE)
        if blocks > WRITE_SAME_BLOCKS_MAX:
            return refuse(INVALID_FIELD_IN_CDB)
        offset, length = lba * BLOCK_BYTES, blocks * BLOCK_BYTES

        def fill(block: bytes) -> Action:
            if len(block) != BLOCK_BYTES:
                return refuse(INVALID_FIELD_IN_CDB)
            if flags & op.WS_UNMAP and block == _ZERO_BLOCK:
                return Discard([(offset, length)])
            return Fill(offset, length, block)

        return fill(_ZERO_BLOCK) if flags & op.NDOB else Parameters(BLOCK_BYTES, fill, exact=True)

    def _unmap(self, cdb: bytes) -> Action:
        length = int.from_bytes(cdb[7:9], "big")
        return Parameters(length, self._unmap_list) if length else Done()

    def _unmap_list(self, data: bytes) -> Action:
        if len(data) < 8:
            return refuse(PARAMETER_LIST_LENGTH_ERROR)
        length = int.from_bytes(data[2:4], "big")
        if length > len(data) - 8 or length % 16:
            return refuse(PARAMETER_LIST_LENGTH_ERROR)
        if length // 16 > UNMAP_RANGES_MAX:
            return refuse(INVALID_FIELD_IN_PARAMETER_LIST)
        ranges, total = [], 0
        for lba, blocks in _RANGE.iter_unpack(data[8 : 8 + length]):
            total += blocks
            if lba + blocks > self.blocks:
                return refuse(LBA_OUT_OF_RANGE)
            if blocks:
                ranges.append((lba * BLOCK_BYTES, blocks * BLOCK_BYTES))
        if total > UNMAP_BLOCKS_MAX:
            return refuse(INVALID_FIELD_IN_PARAMETER_LIST)
        return Discard(ranges) if ranges else Done()

    def _get_lba_status(self, cdb: bytes) -> Action:
        _, lba, allocation = op.decode_extent_16(cdb)
        if lba >= self.blocks:
            return refuse(LBA_OUT_OF_RANGE)
        runs: list[tuple[int, int, bool]] = []
        while lba < self.blocks and len(runs) < max(1, min(LBA_STATUS_RUNS_MAX, (allocation - 8) // 16)):
            length, mapped = self._run_at(lba * BLOCK_BYTES) if self._run_at else ((self.blocks - lba) * BLOCK_BYTES, True)
            blocks = min(length // BLOCK_BYTES, 0xFFFFFFFF)
            runs.append((lba, blocks, mapped))
            lba += blocks
        return Done(lba_status(runs)[:allocation])

    # ---- what it says about itself

    def _inquiry(self, cdb: bytes) -> Action:
        page, allocation = cdb[2], cdb[3] << 8 | cdb[4]
        if not cdb[1] & 1:
            return refuse(INVALID_FIELD_IN_CDB) if page else Done(standard_inquiry()[:allocation])
        data = vpd_page(page, self._identity)
        return refuse(INVALID_FIELD_IN_CDB) if data is None else Done(data[:allocation])

    def _mode_sense_6(self, cdb: bytes) -> Action:
        pages = _pages(cdb)
        if isinstance(pages, Done):
            return pages
        return Done(mode_data_6(pages, self.blocks, descriptor=not cdb[1] & 0x08)[: cdb[4]])

    def _mode_sense_10(self, cdb: bytes) -> Action:
        pages = _pages(cdb)
        if isinstance(pages, Done):
            return pages
        return Done(mode_data_10(pages, self.blocks, descriptor=not cdb[1] & 0x08)[: cdb[7] << 8 | cdb[8]])

    def _report_supported(self, cdb: bytes) -> Action:
        options, opcode, service_action = cdb[2] & 7, cdb[3], cdb[4] << 8 | cdb[5]
        timeouts = cdb[2] & 0x80 != 0
        allocation = _ALLOCATION_32.unpack_from(cdb)[0]
        if options == 0:
            return Done(all_commands(timeouts=timeouts)[:allocation])
        known = [command for command in op.COMMANDS if command.opcode == opcode]
        with_service = bool(known) and known[0].service_action is not None
        if options > 3 or (known and ((options == 1 and with_service) or (options == 2 and not with_service))):
            return refuse(INVALID_FIELD_IN_CDB)
        found = next((c for c in known if not with_service or c.service_action == service_action), None)
        return Done(one_command(found, timeouts=timeouts)[:allocation])


def _bound(handler: Callable[[int, int, int], Action], extent: Extent) -> Handler:
    return lambda cdb: handler(*extent(cdb))


def _pages(cdb: bytes) -> bytes | Done:
    control = cdb[2] >> 6
    if control == 3:
        return refuse(SAVING_NOT_SUPPORTED)
    pages = mode_pages(cdb[2] & 0x3F, cdb[3], changeable=control == 1)
    return refuse(INVALID_FIELD_IN_CDB) if pages is None else pages

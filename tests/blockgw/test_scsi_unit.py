"""SCSI commands as tables: CDB in, action or sense out."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blockgw.scsi import cdb as op
from blockgw.scsi import pages, sense
from blockgw.scsi.action import Action, Check, Compare, Discard, Done, Fill, Flush, Parameters, Read, Write
from blockgw.scsi.block import MemoryBlockDevice
from blockgw.scsi.pages import Identity
from blockgw.scsi.sense import Sense, sense_of
from blockgw.scsi.unit import LogicalUnit
from ring.errors import Conflict, DiskFault, DiskFull, FormatError, RingfortError, Unavailable
from tests.blockgw.initiator import IQN, VOLUME_ID

BLOCKS = 20480  # 10 MiB
UNIT = LogicalUnit(BLOCKS * 512, Identity(VOLUME_ID, f"{IQN},t,0x0001"))


def padded(*values: int) -> bytes:
    return bytes(values).ljust(16, b"\0")


def data_of(action: Action) -> bytes:
    assert isinstance(action, Done) and action.sense is None, action
    return bytes(action.data)


EXTENTS = [
    (op.READ_6, 5, 2, 0, Read(2560, 1024)),
    (op.READ_6, 0, 0, 0, Read(0, 256 * 512)),  # 0 blocks mean 256
    (op.READ_10, 5, 2, 0, Read(2560, 1024)),
    (op.READ_10, 5, 0, 0, Done()),
    (op.READ_10, BLOCKS - 1, 1, 0, Read((BLOCKS - 1) * 512, 512)),
    (op.READ_12, 5, 2, op.DPO, Read(2560, 1024)),
    (op.READ_16, 5, 2, op.FUA, Read(2560, 1024, True)),
    (op.READ_16, 0, pages.TRANSFER_BLOCKS_MAX, 0, Read(0, 4 << 20)),
    (op.WRITE_6, 5, 2, 0, Write(2560, 1024)),
    (op.WRITE_10, 5, 2, 0, Write(2560, 1024)),
    (op.WRITE_12, 5, 2, op.FUA | op.DPO, Write(2560, 1024, True)),
    (op.WRITE_16, 5, 2, op.FUA, Write(2560, 1024, True)),
    (op.WRITE_16, 5, 0, 0, Done()),
    (op.VERIFY_10, 5, 2, 0, Check(2560, 1024)),
    (op.VERIFY_12, 5, 2, op.BYTCHK, Compare(2560, 1024)),
    (op.VERIFY_16, 5, 0, 0, Done()),
    (op.SYNCHRONIZE_CACHE_10, 0, 0, 0, Flush()),
    (op.SYNCHRONIZE_CACHE_16, 0, BLOCKS, 2, Flush()),
    (op.WRITE_SAME_16, 8, 8, op.NDOB | op.WS_UNMAP, Discard([(4096, 4096)])),
    (op.WRITE_SAME_16, 8, 8, op.NDOB, Fill(4096, 4096, bytes(512))),
]


@pytest.mark.parametrize(("opcode", "lba", "blocks", "flags", "expected"), EXTENTS)
def test_extent_commands(opcode: int, lba: int, blocks: int, flags: int, expected: Action) -> None:
    assert UNIT.start(op.encode_extent(opcode, lba, blocks, flags)) == expected


REFUSED = [
    *[(op.encode_extent(code, BLOCKS, 1), sense.LBA_OUT_OF_RANGE) for code, *_ in EXTENTS],
    *[(op.encode_extent(code, BLOCKS - 1, 2), sense.LBA_OUT_OF_RANGE) for code, *_ in EXTENTS],
    (op.encode_extent(op.READ_16, (1 << 64) - 1, 1), sense.LBA_OUT_OF_RANGE),
    (op.encode_extent(op.READ_10, BLOCKS + 1, 0), sense.LBA_OUT_OF_RANGE),
    (op.encode_extent(op.READ_16, 0, pages.TRANSFER_BLOCKS_MAX + 1), sense.INVALID_FIELD_IN_CDB),
    (op.encode_extent(op.WRITE_16, 0, pages.TRANSFER_BLOCKS_MAX + 1), sense.INVALID_FIELD_IN_CDB),
    (op.encode_extent(op.READ_10, 0, 1, 0x20), sense.INVALID_FIELD_IN_CDB),  # RDPROTECT
    (op.encode_extent(op.WRITE_10, 0, 1, 0xE0), sense.INVALID_FIELD_IN_CDB),  # WRPROTECT
    (op.encode_extent(op.VERIFY_10, 0, 1, 0x06), sense.INVALID_FIELD_IN_CDB),  # BYTCHK=11b
    (op.encode_extent(op.WRITE_SAME_16, 0, 0), sense.INVALID_FIELD_IN_CDB),  # WSNZ
    (op.encode_extent(op.WRITE_SAME_10, 0, 1, 0x18), sense.INVALID_FIELD_IN_CDB),  # ANCHOR
    (op.encode_extent(op.WRITE_SAME_16, 0, pages.WRITE_SAME_BLOCKS_MAX + 1), sense.INVALID_FIELD_IN_CDB),
    (padded(op.READ_10, 0, 0, 0, 0, 0, 0, 0, 1, 0x04), sense.INVALID_FIELD_IN_CDB),  # NACA
    (padded(op.UNMAP, 1, 0, 0, 0, 0, 0, 0, 24), sense.INVALID_FIELD_IN_CDB),  # ANCHOR
    (op.encode_inquiry(96)[:2] + b"\x80" + op.encode_inquiry(96)[3:], sense.INVALID_FIELD_IN_CDB),  # a page without EVPD
    (op.encode_inquiry(96, 0xB3), sense.INVALID_FIELD_IN_CDB),
    (op.encode_mode_sense_6(0x1C, 255), sense.INVALID_FIELD_IN_CDB),
    (op.encode_mode_sense_6(0x08, 255, subpage=1), sense.INVALID_FIELD_IN_CDB),
    (op.encode_mode_sense_10(0xC8, 255), sense.SAVING_NOT_SUPPORTED),
    (padded(op.START_STOP_UNIT, 0, 0, 0, 0), sense.INVALID_FIELD_IN_CDB),  # stop
    (padded(op.START_STOP_UNIT, 0, 0, 0, 0x11), sense.INVALID_FIELD_IN_CDB),  # a power condition
    (padded(op.SERVICE_ACTION_IN_16, 0x13), sense.INVALID_OPERATION_CODE),
    (op.encode_get_lba_status(BLOCKS, 24), sense.LBA_OUT_OF_RANGE),
    (padded(0x89), sense.INVALID_OPERATION_CODE),  # COMPARE AND WRITE
    (padded(0x5E), sense.INVALID_OPERATION_CODE),  # PERSISTENT RESERVE IN
    (padded(0x83), sense.INVALID_OPERATION_CODE),  # EXTENDED COPY
    (padded(0x15), sense.INVALID_OPERATION_CODE),  # MODE SELECT
    (padded(0xFF), sense.INVALID_OPERATION_CODE),
]


@pytest.mark.parametrize(("cdb", "expected"), REFUSED)
def test_refusals(cdb: bytes, expected: Sense) -> None:
    assert UNIT.start(cdb) == Done(sense=expected)


@given(st.binary(min_size=16, max_size=16))
def test_no_cdb_reaches_beyond_the_end(cdb: bytes) -> None:
    action = UNIT.start(cdb)
    if isinstance(action, Read | Check | Fill):
        assert 0 <= action.offset < action.offset + action.length <= BLOCKS * 512
    elif isinstance(action, Write | Compare):
        assert 0 <= action.offset < action.offset + action.data_out <= BLOCKS * 512


def test_write_same_takes_one_block() -> None:
    unmapping = UNIT.start(op.encode_extent(op.WRITE_SAME_10, 8, 8, op.WS_UNMAP))
    assert isinstance(unmapping, Parameters) and unmapping.exact and unmapping.data_out == 512
    assert unmapping.then(bytes(512)) == Discard([(4096, 4096)])
    assert unmapping.then(b"x" * 512) == Fill(4096, 4096, b"x" * 512)  # not zeroes: unmapping would change what is read
    plain = UNIT.start(op.encode_extent(op.WRITE_SAME_16, 8, 8))
    assert isinstance(plain, Parameters)
    assert plain.then(bytes(512)) == Fill(4096, 4096, bytes(512))


UNMAPS = [
    (op.encode_unmap_list([(8, 8), (100, 0), (200, 1)]), Discard([(4096, 4096), (102400, 512)])),
    (op.encode_unmap_list([]), Done()),
    (op.encode_unmap_list([(BLOCKS - 1, 2)]), Done(sense=sense.LBA_OUT_OF_RANGE)),
    (op.encode_unmap_list([(0, 1)] * 257), Done(sense=sense.INVALID_FIELD_IN_PARAMETER_LIST)),
    (op.encode_unmap_list([(0, BLOCKS)] * 52), Done(sense=sense.INVALID_FIELD_IN_PARAMETER_LIST)),
    (op.encode_unmap_list([(8, 8)])[:-4], Done(sense=sense.PARAMETER_LIST_LENGTH_ERROR)),
    (bytes(7), Done(sense=sense.PARAMETER_LIST_LENGTH_ERROR)),
]


@pytest.mark.parametrize(("data", "expected"), UNMAPS)
def test_unmap(data: bytes, expected: Action) -> None:
    action = UNIT.start(op.encode_unmap(len(data)))
    assert isinstance(action, Parameters) and action.data_out == len(data)
    assert action.then(data) == expected


def test_unmap_of_nothing() -> None:
    assert UNIT.start(op.encode_unmap(0)) == Done()


def test_standard_inquiry() -> None:
    data = data_of(UNIT.start(op.encode_inquiry(255)))
    assert len(data) == 96 and data[4] == 91
    assert (data[0], data[2], data[8:16], data[16:32]) == (0, 6, b"RINGFORT", b"Volume          ")
    assert data_of(UNIT.start(op.encode_inquiry(5))) == data[:5]


def test_vital_product_data() -> None:
    listed = data_of(UNIT.start(op.encode_inquiry(255, 0)))[4:]
    for code in listed:
        page = data_of(UNIT.start(op.encode_inquiry(1024, code)))
        assert page[1] == code and int.from_bytes(page[2:4], "big") == len(page) - 4
    assert data_of(UNIT.start(op.encode_inquiry(255, 0x80)))[4:] == str(VOLUME_ID).encode()
    identification = data_of(UNIT.start(op.encode_inquiry(255, 0x83)))
    assert identification[4:8] == b"\x01\x03\x00\x10"
    assert identification[8:24].hex() == "6025246" + VOLUME_ID.hex[7:]
    limits = data_of(UNIT.start(op.encode_inquiry(255, 0xB0)))
    assert limits[4] == 1 and struct.unpack_from(">I", limits, 8)[0] == pages.TRANSFER_BLOCKS_MAX
    assert data_of(UNIT.start(op.encode_inquiry(255, 0xB2)))[5:7] == b"\xe4\x02"


def test_capacity() -> None:
    assert data_of(UNIT.start(padded(op.READ_CAPACITY_10))) == struct.pack(">II", BLOCKS - 1, 512)
    data = data_of(UNIT.start(op.encode_read_capacity_16(32)))
    assert data[:16] == struct.pack(">QIBBH", BLOCKS - 1, 512, 0, 3, 0xC000) and len(data) == 32
    large = LogicalUnit(3 << 40, Identity(VOLUME_ID, ""))
    assert data_of(large.start(padded(op.READ_CAPACITY_10)))[:4] == b"\xff\xff\xff\xff"


def test_lba_status() -> None:
    unknown = data_of(UNIT.start(op.encode_get_lba_status(5, 4096)))
    assert unknown == struct.pack(">I4xQIB3x", 20, 5, BLOCKS - 5, 0)
    device = MemoryBlockDevice(BLOCKS * 512)
    unit = LogicalUnit(device.size, Identity(VOLUME_ID, ""), device.run_at)
    device.write_now(4096, b"x" * 4096)
    runs = [(5, 3, 1), (8, 8, 0), (16, BLOCKS - 16, 1)]
    body = b"".join(struct.pack(">QIB3x", *run) for run in runs)
    assert data_of(unit.start(op.encode_get_lba_status(5, 4096))) == struct.pack(">I4x", 52) + body
    assert data_of(unit.start(op.encode_get_lba_status(5, 24))) == struct.pack(">I4x", 20) + body[:16]


def test_mode_sense() -> None:
    data = data_of(UNIT.start(op.encode_mode_sense_6(0x3F, 255)))
    assert data[0] == len(data) - 1 and data[2] == 0x10 and data[3] == 8
    assert data[12:15] == b"\x08\x12\x04" and data[32:34] == b"\x0a\x0a"
    assert data_of(UNIT.start(op.encode_mode_sense_6(0x08, 255, flags=8)))[4:7] == b"\x08\x12\x04"  # DBD
    changeable = data_of(UNIT.start(op.encode_mode_sense_6(0x48, 255, flags=8)))
    assert changeable[4:] == b"\x08\x12" + bytes(18)
    longer = data_of(UNIT.start(op.encode_mode_sense_10(0x0A, 255)))
    assert int.from_bytes(longer[:2], "big") == len(longer) - 2 and longer[16:18] == b"\x0a\x0a"


def test_report_supported_operation_codes() -> None:
    every = data_of(UNIT.start(op.encode_report_supported(0, 0, 0, 65535)))
    assert int.from_bytes(every[:4], "big") == len(every) - 4 == 8 * len(op.COMMANDS)
    assert data_of(UNIT.start(op.encode_report_supported(1, op.READ_10, 0, 255))).hex() == "0003000a2818ffffffff00ffff00"
    assert data_of(UNIT.start(op.encode_report_supported(1, 0x89, 0, 255)))[:4].hex() == "00010000"
    assert data_of(UNIT.start(op.encode_report_supported(3, op.SERVICE_ACTION_IN_16, 0x13, 255)))[:4].hex() == "00010000"
    timed = data_of(UNIT.start(op.encode_report_supported(0x80 | 2, op.SERVICE_ACTION_IN_16, 0x10, 255)))
    assert timed[1] == 0x83 and len(timed) == 4 + 16 + 12
    for options, opcode in ((1, op.SERVICE_ACTION_IN_16), (2, op.READ_10), (5, op.READ_10)):
        assert UNIT.start(op.encode_report_supported(options, opcode, 0, 255)) == Done(sense=sense.INVALID_FIELD_IN_CDB)


def test_every_listed_command_is_served() -> None:
    for command in op.COMMANDS:
        cdb = bytearray(padded(command.opcode))
        if command.service_action is not None:
            cdb[1] = command.service_action
        if command.name != "REPORT LUNS":  # the nexus answers that
            assert UNIT.start(bytes(cdb)) != Done(sense=sense.INVALID_OPERATION_CODE), command.name


@pytest.mark.parametrize(
    ("error", "writing", "expected"),
    [
        (Unavailable(""), False, "2/04/01"),
        (Unavailable(""), True, "2/04/01"),
        (DiskFault(""), False, "3/11/00"),
        (DiskFault(""), True, "3/0c/00"),
        (DiskFull(""), True, "7/27/07"),
        (Conflict(""), True, "3/0c/00"),
        (FormatError(""), False, "4/44/00"),
    ],
)
def test_errors_as_sense(error: RingfortError, writing: bool, expected: str) -> None:
    assert str(sense_of(error, writing=writing)) == expected


def test_sense_data() -> None:
    assert sense.LBA_OUT_OF_RANGE.encode().hex() == "70000500000000" + "0a" + "00000000" + "2100" + "00000000"
    assert sense.decode(sense.LBA_OUT_OF_RANGE.encode()) == sense.LBA_OUT_OF_RANGE

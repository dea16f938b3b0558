"""LUN addresses and unit attentions."""

from __future__ import annotations

import pytest

from blockgw.scsi import cdb as op
from blockgw.scsi import sense
from blockgw.scsi.action import Done, Read
from blockgw.scsi.nexus import Nexus, decode_lun, encode_lun
from blockgw.scsi.pages import Identity
from blockgw.scsi.unit import LogicalUnit
from tests.blockgw.initiator import VOLUME_ID

UNIT = LogicalUnit(1 << 20, Identity(VOLUME_ID, "port"))
READY = bytes(16)
READ = op.encode_extent(op.READ_10, 0, 1)


@pytest.mark.parametrize("lun", [0, 1, 255, 256, 16383])
def test_lun_addresses(lun: int) -> None:
    assert decode_lun(encode_lun(lun)) == lun


def test_flat_address_of_a_small_lun() -> None:
    assert decode_lun(bytes.fromhex("4001000000000000")) == 1
    assert decode_lun(bytes.fromhex("0100000000000000")) is None  # another bus
    assert decode_lun(bytes.fromhex("0001000100000000")) is None  # two levels


def test_power_on_is_told_once() -> None:
    nexus = Nexus(UNIT)
    inquiry = nexus.start(encode_lun(1), op.encode_inquiry(96))
    assert inquiry == Done(inquiry.data if isinstance(inquiry, Done) else b"")  # INQUIRY does not wait for it
    assert nexus.start(encode_lun(1), READY) == Done(sense=sense.POWER_ON)
    assert nexus.start(encode_lun(1), READ) == Read(0, 512)


def test_request_sense_takes_the_attention() -> None:
    nexus = Nexus(UNIT)
    assert nexus.start(encode_lun(1), bytes((3, 0, 0, 0, 18)).ljust(16, b"\0")) == Done(sense.POWER_ON.encode())
    assert nexus.start(encode_lun(1), READY) == Done()


def test_attentions_queue_up() -> None:
    nexus = Nexus(UNIT)
    for _ in range(3):
        nexus.attend(sense.DEVICE_RESET)
    assert nexus.start(encode_lun(1), READ) == Done(sense=sense.POWER_ON)
    assert nexus.start(encode_lun(1), READ) == Done(sense=sense.DEVICE_RESET)
    assert nexus.start(encode_lun(1), READ) == Read(0, 512)


def test_other_luns() -> None:
    nexus = Nexus(UNIT)
    first = nexus.start(encode_lun(0), op.encode_inquiry(96))
    other = nexus.start(encode_lun(7), op.encode_inquiry(96))
    assert isinstance(first, Done) and first.data[0] == 0x3F and len(first.data) == 96
    assert isinstance(other, Done) and other.data[0] == 0x7F
    assert nexus.start(encode_lun(0), op.encode_inquiry(96, 0x83)) == Done(sense=sense.INVALID_FIELD_IN_CDB)
    assert nexus.start(encode_lun(0), READY) == Done(sense=sense.LOGICAL_UNIT_NOT_SUPPORTED)
    assert nexus.start(encode_lun(0), READ) == Done(sense=sense.LOGICAL_UNIT_NOT_SUPPORTED)
    asked = nexus.start(encode_lun(0), bytes((3, 0, 0, 0, 18)).ljust(16, b"\0"))
    assert asked == Done(sense.LOGICAL_UNIT_NOT_SUPPORTED.encode())


def test_data_at_lun_0() -> None:
    nexus = Nexus(UNIT, lun=0)
    assert nexus.start(encode_lun(0), READY) == Done(sense=sense.POWER_ON)
    assert nexus.start(encode_lun(0), READ) == Read(0, 512)


def test_report_luns() -> None:
    nexus = Nexus(UNIT)
    every = bytes.fromhex("00000008 00000000 0001000000000000")
    assert nexus.start(encode_lun(0), op.encode_report_luns(256)) == Done(every)
    assert nexus.start(encode_lun(1), op.encode_report_luns(256, 2)) == Done(every)
    assert nexus.start(encode_lun(0), op.encode_report_luns(256, 1)) == Done(bytes(8))
    assert nexus.start(encode_lun(0), op.encode_report_luns(15)) == Done(sense=sense.INVALID_FIELD_IN_CDB)
    assert nexus.start(encode_lun(0), op.encode_report_luns(256, 3)) == Done(sense=sense.INVALID_FIELD_IN_CDB)

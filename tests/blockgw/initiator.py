"""The initiator's half of conversations in tests: builds requests, reads answers.  Pure."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from uuid import UUID

from blockgw.iscsi import pdu, text
from blockgw.iscsi.login import OPERATIONAL, SECURITY
from blockgw.scsi.nexus import encode_lun
from blockgw.scsi.sense import Sense
from blockgw.scsi.sense import decode as decode_sense

VOLUME_ID = UUID("11111111-2222-4333-8444-555555555555")
IQN = f"iqn.2026-01.org.ringfort:volume-{VOLUME_ID}"
INITIATOR = "iqn.2026-01.org.ringfort:tester"
ISID = b"\x80\x00\x00\x00\x00\x01"
LUN = encode_lun(1)

IDENTITY = [("InitiatorName", INITIATOR), ("SessionType", "Normal"), ("TargetName", IQN)]


@dataclass(frozen=True)
class Answer:
    header: bytes
    data: bytes

    @property
    def opcode(self) -> int:
        return self.header[0] & 0x3F

    @property
    def flags(self) -> int:
        return self.header[1]

    def word(self, offset: int) -> int:
        return int(struct.unpack_from(">I", self.header, offset)[0])

    @property
    def itt(self) -> int:
        return self.word(16)

    @property
    def status(self) -> int:
        return self.header[3]

    @property
    def login_status(self) -> int:
        return self.header[36] << 8 | self.header[37]

    @property
    def sense(self) -> Sense:
        return decode_sense(self.data[2:])

    @property
    def keys(self) -> dict[str, str]:
        return dict(text.decode(self.data))


def answers(data: bytes) -> list[Answer]:
    """All answers in what a target sent; without digests."""
    found = []
    while data:
        length = int.from_bytes(data[5:8], "big")
        found.append(Answer(data[:48], data[48 : 48 + length]))
        data = data[48 + length + -length % 4 :]
    return found


def _with_data(header: bytes, data: bytes) -> bytes:
    return header[:4] + struct.pack(">I", len(data)) + header[8:] + data + pdu.pad(data)


def login(
    pairs: list[tuple[str, str]] | bytes,
    *,
    stage: int = OPERATIONAL,
    following: int | None = 3,
    more: bool = False,
    command_sn: int = 1,
    tsih: int = 0,
    isid: bytes = ISID,
) -> bytes:
    """``following`` None: T=0."""
    data = pairs if isinstance(pairs, bytes) else text.encode(pairs)
    flags = stage << 2 | (0 if following is None else pdu.TRANSIT | following) | (pdu.CONTINUES if more else 0)
    header = pdu.LOGIN_REQUEST.pack(pdu.LOGIN | pdu.IMMEDIATE, flags, 0, 0, 0, isid, tsih, 7, 0, command_sn, 0)
    return _with_data(header, data)


def security(pairs: list[tuple[str, str]], *, following: int | None = None) -> bytes:
    return login(pairs, stage=SECURITY, following=following)


def command(
    itt: int,
    command_sn: int,
    cdb: bytes,
    *,
    reads: int = 0,
    writes: int = 0,
    data: bytes = b"",
    final: bool = True,
    attribute: int = 1,
    immediate: bool = False,
    lun: bytes = LUN,
) -> bytes:
    flags = (pdu.FINAL if final else 0) | (pdu.READS if reads else 0) | (pdu.WRITES if writes else 0) | attribute
    opcode = pdu.SCSI_COMMAND | (pdu.IMMEDIATE if immediate else 0)
    return _with_data(pdu.COMMAND.pack(opcode, flags, lun, itt, reads or writes, command_sn, 0, cdb), data)


def data_out(itt: int, tag: int, number: int, offset: int, data: bytes, *, final: bool = True) -> bytes:
    header = pdu.DATA_OUT_HEADER.pack(pdu.DATA_OUT, pdu.FINAL if final else 0, LUN, itt, tag, 0, number, offset)
    return _with_data(header, data)


def request(
    opcode: int,
    itt: int,
    command_sn: int,
    *,
    flags: int = pdu.FINAL,
    word: int = pdu.NO_TAG,
    data: bytes = b"",
    immediate: bool = False,
) -> bytes:
    """NOP-Out, task management, text, logout."""
    first = opcode | (pdu.IMMEDIATE if immediate else 0)
    return _with_data(pdu.REQUEST.pack(first, flags, 0, LUN, itt, word, command_sn, 0, 0, 0), data)

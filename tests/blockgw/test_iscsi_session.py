"""The full feature phase as conversations with a disk in RAM."""

from __future__ import annotations

import pytest

from blockgw.iscsi import pdu, text
from blockgw.iscsi.crc32c import digest
from blockgw.iscsi.negotiation import Parameters
from blockgw.iscsi.pdu import ProtocolError
from blockgw.iscsi.session import (
    COMMANDS_MAX,
    SOLICITED_BYTES_MAX,
    Event,
    LoggedOut,
    Management,
    SendTargets,
    Session,
)
from blockgw.iscsi.transfer import Task
from blockgw.scsi import cdb as op
from blockgw.scsi import sense
from blockgw.scsi.action import Done, Read, Write
from blockgw.scsi.nexus import Nexus, encode_lun
from blockgw.scsi.pages import Identity
from blockgw.scsi.unit import LogicalUnit
from tests.blockgw.initiator import IQN, VOLUME_ID, Answer, answers, command, data_out, request

SIZE = 64 << 20


def read(blocks: int = 1, lba: int = 0) -> bytes:
    return op.encode_extent(op.READ_16, lba, blocks)


def write(blocks: int = 1, lba: int = 0) -> bytes:
    return op.encode_extent(op.WRITE_16, lba, blocks)


class Talk:
    """A session whose tasks are performed at once, or kept in ``open`` when ``slow``."""

    def __init__(self, parameters: Parameters | None = None, *, slow: bool = False, discovery: bool = False) -> None:
        nexus = Nexus(LogicalUnit(SIZE, Identity(VOLUME_ID, "port")))
        chosen = parameters or Parameters()
        self.session = Session(chosen, None if discovery else nexus, command_sn=10, status_sn=100, target_name=IQN)
        nexus.start(encode_lun(1), bytes(16))  # takes the unit attention away
        self.data = bytearray(SIZE)
        self.slow = slow
        self.open: list[Task] = []
        self.events: list[Event] = []

    def say(self, *requests: bytes) -> list[Answer]:
        for event in self.session.receive(b"".join(requests)):
            if not isinstance(event, Task):
                self.events.append(event)
            elif self.slow:
                self.open.append(event)
            else:
                self.perform(event)
        return self.heard()

    def perform(self, task: Task) -> None:
        action = task.action
        if isinstance(action, Read):
            self.session.complete_read(task, bytes(self.data[action.offset : action.offset + action.length]))
        elif isinstance(action, Write):
            assert len(task.data) == action.data_out
            self.data[action.offset : action.offset + action.data_out] = task.data
            self.session.complete(task, Done())
        else:
            self.session.complete(task, action if isinstance(action, Done) else Done())

    def heard(self) -> list[Answer]:
        sent = b"".join(self.session.out)
        self.session.out.clear()
        return answers(sent)


def test_a_read_is_one_data_in_with_status() -> None:
    talk = Talk()
    talk.data[512:1024] = b"r" * 512
    [heard] = talk.say(command(1, 10, read(1, 1), reads=512))
    assert heard.opcode == pdu.DATA_IN and heard.flags == 0x81 and heard.status == 0 and heard.data == b"r" * 512
    assert [heard.word(at) for at in (16, 20, 24, 28, 32, 36, 40, 44)] == [1, pdu.NO_TAG, 100, 11, 11 + 127, 0, 0, 0]


def test_a_long_read_is_cut_by_segment_and_burst() -> None:
    talk = Talk(Parameters(segment_max=8192, burst_max=12288))
    talk.data[:32768] = bytes(range(256)) * 128
    heard = talk.say(command(1, 10, read(64), reads=32768))
    assert [(a.word(40), len(a.data), a.flags) for a in heard] == [
        (0, 8192, 0),
        (8192, 4096, 0x80),
        (12288, 8192, 0),
        (20480, 4096, 0x80),
        (24576, 8192, 0x81),
    ]
    assert [a.word(36) for a in heard] == [0, 1, 2, 3, 4]
    assert b"".join(a.data for a in heard) == bytes(range(256)) * 128


RESIDUALS = [
    # the CDB's blocks, the initiator's length, flags of the answer, residual
    (2, 1024, 0, 0),
    (2, 512, 0x04, 512),  # overflow
    (2, 1000, 0x04, 24),
    (2, 2048, 0x02, 1024),  # underflow
    (0, 512, 0x02, 512),
]


@pytest.mark.parametrize(("blocks", "expected", "flag", "residual"), RESIDUALS)
def test_residuals_of_reads(blocks: int, expected: int, flag: int, residual: int) -> None:
    heard = Talk().say(command(1, 10, read(blocks), reads=expected))[-1]
    assert (heard.flags & 0x06, heard.word(44), heard.status) == (flag, residual, 0)
    assert len(heard.data) == min(expected, blocks * 512)


@pytest.mark.parametrize(("blocks", "expected", "flag", "residual"), RESIDUALS)
def test_residuals_of_writes(blocks: int, expected: int, flag: int, residual: int) -> None:
    talk = Talk()
    [heard] = talk.say(command(1, 10, write(blocks), writes=expected, data=b"w" * expected))
    assert (heard.opcode, heard.flags & 0x06, heard.word(44), heard.status) == (pdu.SCSI_RESPONSE, flag, residual, 0)
    assert talk.data.count(b"w") == min(expected // 512, blocks) * 512  # whole blocks


def test_a_read_without_room_for_its_data() -> None:
    [heard] = Talk().say(command(1, 10, read(1)))
    assert (heard.opcode, heard.flags & 0x06, heard.word(44)) == (pdu.SCSI_RESPONSE, 0x04, 512)


def test_an_error_carries_sense() -> None:
    [heard] = Talk().say(command(1, 10, read(1, SIZE // 512), reads=512))
    assert (heard.opcode, heard.status, heard.word(44)) == (pdu.SCSI_RESPONSE, 2, 512)
    assert heard.sense == sense.LBA_OUT_OF_RANGE and heard.data[:2] == b"\0\x12"


def test_immediate_data() -> None:
    talk = Talk()
    [heard] = talk.say(command(1, 10, write(2), writes=1024, data=b"i" * 1024))
    assert heard.opcode == pdu.SCSI_RESPONSE and talk.data[:1024] == b"i" * 1024


def test_solicited_data() -> None:
    talk = Talk(Parameters(burst_max=1024))
    [asked] = talk.say(command(1, 10, write(4), writes=2048, data=b"a" * 512))
    assert asked.opcode == pdu.R2T
    assert [asked.word(at) for at in (16, 24, 28, 32, 36, 40, 44)] == [1, 100, 11, 11 + 126, 0, 512, 1024]
    tag = asked.word(20)
    assert talk.say(data_out(1, tag, 0, 512, b"b" * 512, final=False)) == []
    [again] = talk.say(data_out(1, tag, 1, 1024, b"c" * 512))
    assert [again.word(at) for at in (36, 40, 44)] == [1, 1536, 512] and again.word(20) != tag
    [done] = talk.say(data_out(1, again.word(20), 0, 1536, b"d" * 512))
    assert done.opcode == pdu.SCSI_RESPONSE and done.word(36) == 2  # ExpDataSN: two R2Ts
    assert talk.data[:2048] == b"a" * 512 + b"b" * 512 + b"c" * 512 + b"d" * 512


def test_unsolicited_data() -> None:
    talk = Talk(Parameters(initial_r2t=False, first_burst_max=1024))
    assert talk.say(command(1, 10, write(4), writes=2048, data=b"a" * 512, final=False)) == []
    [asked] = talk.say(data_out(1, pdu.NO_TAG, 0, 512, b"b" * 512))
    assert (asked.opcode, asked.word(40), asked.word(44)) == (pdu.R2T, 1024, 1024)
    [done] = talk.say(data_out(1, asked.word(20), 0, 1024, b"c" * 1024))
    assert done.status == 0 and talk.data[:2048] == b"a" * 512 + b"b" * 512 + b"c" * 1024


def test_unsolicited_data_of_a_refused_command_is_let_go() -> None:
    talk = Talk(Parameters(initial_r2t=False))
    [refused] = talk.say(command(1, 10, write(2, SIZE // 512), writes=1024, final=False))
    assert refused.status == 2
    assert talk.say(data_out(1, pdu.NO_TAG, 0, 0, b"x" * 1024)) == []
    assert talk.say(command(2, 11, read(1), reads=512))[0].status == 0


def first_r2t(talk: Talk) -> int:
    [asked] = talk.say(command(1, 10, write(2), writes=1024))
    assert asked.opcode == pdu.R2T
    return asked.word(20)


BAD_DATA = [
    (0, 27, 0, 1024, True),  # DataSN
    (0, 0, 512, 512, True),  # offset
    (1, 0, 0, 1024, True),  # tag
    (0, 0, 0, 512, True),  # too short
    (0, 0, 0, 1024, False),  # no end
    (0, 0, 0, 1536, True),  # too long
]


@pytest.mark.parametrize(("tag", "number", "offset", "length", "final"), BAD_DATA)
def test_bad_data_out_ends_the_connection(tag: int, number: int, offset: int, length: int, final: bool) -> None:
    talk = Talk()
    asked = first_r2t(talk)
    with pytest.raises(ProtocolError):
        talk.say(data_out(1, asked + tag, number, offset, b"x" * length, final=final))
    assert not any(talk.data[:1024])


BAD_COMMANDS = [
    (Parameters(), command(1, 10, write(1), writes=512, final=False)),  # InitialR2T=Yes
    (Parameters(immediate_data=False), command(1, 10, write(1), writes=512, data=bytes(512))),
    (Parameters(), command(1, 10, write(1), writes=512, data=bytes(1024))),  # beyond its own length
    (Parameters(first_burst_max=512), command(1, 10, write(2), writes=1024, data=bytes(1024))),
    (Parameters(), command(1, 10, read(1), reads=512, data=bytes(512))),
    (Parameters(), command(1, 12, read(1), reads=512)),  # a gap
    (Parameters(), command(pdu.NO_TAG, 10, read(1), reads=512)),
    (Parameters(), request(pdu.SNACK, 1, 10)),
    (Parameters(), request(pdu.LOGIN, 1, 10)),
    (Parameters(), request(0x1C, 1, 10)),
    (Parameters(), request(pdu.TEXT, 1, 10, flags=pdu.CONTINUES, data=b"a=b\0")),
]


@pytest.mark.parametrize(("parameters", "bad"), BAD_COMMANDS)
def test_what_ends_the_connection(parameters: Parameters, bad: bytes) -> None:
    with pytest.raises(ProtocolError):
        Talk(parameters).say(bad)


def test_a_command_in_a_discovery_session() -> None:
    with pytest.raises(ProtocolError):
        Talk(discovery=True).say(command(1, 10, read(1), reads=512))


def test_a_tag_in_use() -> None:
    talk = Talk(slow=True)
    talk.say(command(1, 10, read(1), reads=512))
    with pytest.raises(ProtocolError):
        talk.say(command(1, 11, read(1), reads=512))


@pytest.mark.parametrize("command_sn", [9, 10 + 128, 10 + (1 << 31), 10 - (1 << 31)])
def test_numbers_outside_the_window_are_ignored(command_sn: int) -> None:
    talk = Talk()
    assert talk.say(command(1, command_sn & pdu.MASK, read(1), reads=512)) == []
    assert len(talk.say(command(1, 10, read(1), reads=512))) == 1


def test_the_window_closes_and_opens() -> None:
    talk = Talk(slow=True)
    talk.say(*(command(number, 10 + number, read(1), reads=512) for number in range(COMMANDS_MAX)))
    assert len(talk.open) == COMMANDS_MAX
    assert talk.say(command(999, 10 + COMMANDS_MAX, read(1), reads=512)) == []  # beyond: ignored
    assert len(talk.open) == COMMANDS_MAX
    talk.perform(talk.open[0])
    [heard] = talk.heard()
    assert heard.word(28) == heard.word(32) == 10 + COMMANDS_MAX  # room for one
    talk.say(command(999, 10 + COMMANDS_MAX, read(1), reads=512))
    assert len(talk.open) == COMMANDS_MAX + 1


def test_immediate_commands_have_a_limit_too() -> None:
    talk = Talk(slow=True)
    heard = talk.say(*(command(number, 10, read(1), reads=512, immediate=True) for number in range(COMMANDS_MAX + 20)))
    assert len(talk.open) == COMMANDS_MAX + 16
    assert [(a.opcode, a.header[2]) for a in heard] == [(pdu.REJECT, 6)] * 4


def test_solicited_data_has_a_budget() -> None:
    talk = Talk()
    size = 4 << 20
    heard = talk.say(*(command(number, 10 + number, write(size // 512), writes=size) for number in range(5)))
    assert [a.itt for a in heard] == [0, 1] and 2 * size == SOLICITED_BYTES_MAX
    sent, asked = 0, heard[0]
    while sent < size:
        assert asked.opcode == pdu.R2T and asked.itt == 0
        heard = talk.say(data_out(0, asked.word(20), 0, sent, bytes(262144)))
        sent, asked = sent + 262144, heard[0]
    assert [(a.opcode, a.itt) for a in heard] == [(pdu.R2T, 2), (pdu.SCSI_RESPONSE, 0)]


def test_ordered_tasks() -> None:
    talk = Talk(slow=True)
    talk.say(
        command(1, 10, read(1), reads=512),
        command(2, 11, read(1), reads=512, attribute=pdu.ORDERED),
        command(3, 12, read(1), reads=512),
        command(4, 13, read(1), reads=512, attribute=pdu.HEAD_OF_QUEUE),
    )
    assert [task.itt for task in talk.open] == [1, 4]
    talk.perform(talk.open[0])
    [second] = talk.session.released()
    assert second.itt == 2 and talk.session.released() == []
    talk.perform(second)
    assert [task.itt for task in talk.session.released()] == [3]


def test_nop_out_is_echoed() -> None:
    talk = Talk()
    [heard] = talk.say(request(pdu.NOP_OUT, 5, 10, data=b"ping", immediate=True))
    assert (heard.opcode, heard.itt, heard.word(20), heard.data) == (pdu.NOP_IN, 5, pdu.NO_TAG, b"ping")
    assert heard.word(28) == 10  # immediate: the number is not used up
    assert talk.say(request(pdu.NOP_OUT, pdu.NO_TAG, 10, word=3, immediate=True)) == []  # an answer to our own
    talk.session.ping()
    assert talk.heard()[0].itt == pdu.NO_TAG


def test_abort_task() -> None:
    talk = Talk(slow=True)
    talk.say(command(1, 10, read(1), reads=512))
    talk.say(request(pdu.TASK_MANAGEMENT, 2, 11, flags=0x81, word=1, immediate=True))
    [event] = talk.events
    assert isinstance(event, Management) and event.tasks == tuple(talk.open) and not event.resets
    talk.session.complete(talk.open[0], Done())  # stopped
    talk.session.manage(event)
    [heard] = talk.heard()  # no answer to the command
    assert (heard.opcode, heard.itt, heard.header[2]) == (pdu.TASK_MANAGEMENT_RESPONSE, 2, 0)


def test_abort_of_a_task_that_waits_for_data() -> None:
    talk = Talk()
    tag = first_r2t(talk)
    talk.say(request(pdu.TASK_MANAGEMENT, 2, 11, flags=0x81, word=1, immediate=True))
    assert talk.session.tasks == {}
    assert talk.say(data_out(1, tag, 0, 0, b"x" * 1024)) == []
    assert not any(talk.data[:1024])


@pytest.mark.parametrize(("function", "response"), [(1, 1), (2, 0), (3, 5), (4, 0), (5, 0), (6, 0), (7, 5), (8, 4), (9, 5)])
def test_task_management_functions(function: int, response: int) -> None:
    talk = Talk()
    talk.say(request(pdu.TASK_MANAGEMENT, 2, 10, flags=0x80 | function, word=77))
    [event] = talk.events
    assert isinstance(event, Management) and event.response == response
    assert event.resets == (function in (4, 5, 6))


def test_targets_in_discovery() -> None:
    talk = Talk(Parameters(segment_max=512), discovery=True)
    talk.say(request(pdu.TEXT, 3, 10, data=b"SendTargets=All\0"))
    [event] = talk.events
    assert event == SendTargets(3, None)
    listed = [(f"iqn.2026-01.org.ringfort:volume-{number}", f"127.0.0.1:3260,{number}") for number in range(20)]
    talk.session.answer_targets(SendTargets(3, None), listed)
    [heard] = talk.heard()
    found, number = heard.data, 11
    while not heard.flags & pdu.FINAL:
        assert heard.flags & pdu.CONTINUES and len(heard.data) == 512
        [heard] = talk.say(request(pdu.TEXT, 3, number, word=heard.word(20)))
        found, number = found + heard.data, number + 1
    keys = text.decode(found)
    assert list(zip([v for k, v in keys if k == "TargetName"], [v for k, v in keys if k == "TargetAddress"], strict=True)) == listed


def test_text_in_a_normal_session() -> None:
    talk = Talk()
    talk.say(request(pdu.TEXT, 3, 10, data=b"SendTargets=\0"))
    assert talk.events == [SendTargets(3, IQN)]
    [all_of_them] = talk.say(request(pdu.TEXT, 4, 11, data=b"SendTargets=All\0"))
    assert all_of_them.keys == {"SendTargets": "Reject"}
    [other] = talk.say(request(pdu.TEXT, 5, 12, data=b"MaxBurstLength=512\0"))
    assert other.keys == {"MaxBurstLength": "NotUnderstood"}


def test_logout() -> None:
    talk = Talk()
    [recovery] = talk.say(request(pdu.LOGOUT, 6, 10, flags=0x82))
    assert recovery.header[2] == 2 and talk.events == []
    [heard] = talk.say(request(pdu.LOGOUT, 7, 11, flags=0x80))
    assert (heard.opcode, heard.header[2]) == (pdu.LOGOUT_RESPONSE, 0) and talk.events == [LoggedOut()]


def test_status_numbers_rise_by_one() -> None:
    talk = Talk()
    heard = talk.say(
        command(1, 10, read(1), reads=512),
        command(2, 11, write(1), writes=512, data=bytes(512)),
        command(3, 12, bytes(16)),
        command(4, 13, b"\xff" * 16),
        request(pdu.NOP_OUT, 5, 14),
    )
    assert [a.word(24) for a in heard] == [100, 101, 102, 103, 104]


def test_write_same_takes_exactly_a_block() -> None:
    same = op.encode_extent(op.WRITE_SAME_10, 0, 1)
    heard = Talk().say(command(1, 10, same, writes=1024, data=bytes(1024)), command(2, 11, same))
    assert [(a.status, a.sense) for a in heard] == [(2, sense.INVALID_FIELD_IN_CDB)] * 2


def test_digests_both_ways() -> None:
    talk = Talk(Parameters(header_digest=True, data_digest=True))
    whole = command(1, 10, write(1), writes=512, data=b"d" * 512)
    for _ in talk.session.receive(whole[:48] + digest(whole[:48]) + whole[48:] + digest(whole[48:])):
        assert isinstance(_, Task)
        talk.perform(_)
    header, checksum = talk.session.out
    assert checksum == digest(header)
    talk.session.out.clear()
    whole = command(2, 11, read(1), reads=512)
    for task in talk.session.receive(whole + digest(whole)):
        assert isinstance(task, Task)
        talk.perform(task)
    header, checksum, data, data_checksum = talk.session.out
    assert checksum == digest(header) and data == b"d" * 512 and data_checksum == digest(data)

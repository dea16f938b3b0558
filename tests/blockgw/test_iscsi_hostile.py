"""Initiators that mean harm: whatever they send is a ProtocolError at most, and what is held for them stays bounded."""

from __future__ import annotations

import random

import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from blockgw.iscsi import pdu, text
from blockgw.iscsi.chap import Secret
from blockgw.iscsi.login import REQUESTS_MAX, SEGMENT_BYTES_LOGIN, Access, Login, NeedTarget, first_pdu_bytes, target_name_of
from blockgw.iscsi.negotiation import KEYS, SEGMENT_BYTES_MAX, Negotiation, Parameters
from blockgw.iscsi.pdu import Framer, ProtocolError
from blockgw.iscsi.session import COMMANDS_MAX, IMMEDIATE_MAX, SOLICITED_BYTES_MAX, Session
from blockgw.iscsi.transfer import Task
from blockgw.scsi import cdb as op
from blockgw.scsi.action import Done
from blockgw.scsi.block import MemoryBlockDevice
from blockgw.scsi.nexus import Nexus, encode_lun
from blockgw.scsi.pages import Identity
from blockgw.scsi.unit import LogicalUnit
from blockgw.target.server import TargetServer
from blockgw.target.target import Target
from ring.world.interface import TcpAddress
from ring.world.sim import SimWorld
from tests.blockgw.initiator import IDENTITY, IQN, VOLUME_ID, command, data_out, login, request

CHAP = Access(Secret("user", "initiator-secret"), Secret("target", "the-target-secret"))

words = st.sampled_from(
    [*KEYS, "AuthMethod", "CHAP_A", "CHAP_I", "CHAP_C", "CHAP_N", "CHAP_R", "InitiatorName", "TargetName", "SessionType"]
)
values = st.one_of(
    st.sampled_from(
        [
            "Yes",
            "No",
            "None",
            "CHAP",
            "CHAP,None",
            "CRC32C",
            "5",
            "7",
            "0x00",
            "0bAAAA",
            "0x",
            "Discovery",
            "Normal",
            "²",
            "1" * 400,
        ]
    ),
    st.text(max_size=20),
    st.integers().map(str),
)
login_requests = st.one_of(
    st.builds(
        lambda pairs, stage, following, more, tsih: login(pairs, stage=stage, following=following, more=more, tsih=tsih),
        st.one_of(st.just(IDENTITY), st.lists(st.tuples(words, values), max_size=8), st.binary(max_size=60)),
        st.integers(0, 3),
        st.sampled_from([None, 0, 1, 2, 3]),
        st.booleans(),
        st.sampled_from([0, 0, 0, 1]),
    ),
    st.binary(max_size=100),
)


@given(st.lists(login_requests, max_size=REQUESTS_MAX + 5))
def test_login(requests: list[bytes]) -> None:
    login_phase, framer = Login(lambda length: b"t" * length, tsih=1), Framer(SEGMENT_BYTES_LOGIN)
    try:
        for data in requests:
            assert first_pdu_bytes(data) <= 48 + SEGMENT_BYTES_LOGIN
            assert target_name_of(data) is None or b"TargetName" in data
            for header, segment in framer.feed(data):
                step = login_phase.receive(header, segment)
                if isinstance(step, NeedTarget):
                    step = login_phase.found(CHAP)
                assert login_phase.discovery or not step.logged_in  # the secret was never said
                if step.refusal is not None or step.logged_in:
                    return
    except ProtocolError:
        return


@given(words, values)
def test_negotiated_values_stay_usable(key: str, value: str) -> None:
    negotiation = Negotiation()
    negotiation.answer(key, value)
    parameters = negotiation.parameters()
    assert 512 <= parameters.segment_max < 1 << 24
    assert 512 <= parameters.first_burst_max <= parameters.burst_max <= 262144


tags = st.integers(0, 4)
numbers = st.one_of(st.integers(8, 14), st.sampled_from([0, pdu.MASK]))
lengths = st.sampled_from([0, 1, 511, 512, 1024, 4096, 65536, 1 << 20, 4 << 20, pdu.MASK])
cdbs = st.one_of(
    st.binary(min_size=16, max_size=16),
    st.builds(
        op.encode_extent,
        st.sampled_from([op.READ_10, op.WRITE_10, op.READ_16, op.WRITE_16, op.VERIFY_16, op.WRITE_SAME_16]),
        st.integers(0, 9),
        st.sampled_from([0, 1, 2, 8, 128, 8192]),
        st.sampled_from([0, 1, 2, 8]),
    ),
    st.builds(op.encode_unmap, st.integers(0, 64)),
)
payloads = st.sampled_from([0, 1, 3, 512, 1024, 4096, 65536]).map(bytes)
session_requests = st.one_of(
    st.builds(
        lambda itt, number, cdb, reads, writes, data, final, attribute, immediate, lun: command(
            itt,
            number,
            cdb,
            reads=reads,
            writes=writes,
            data=data,
            final=final,
            attribute=attribute,
            immediate=immediate,
            lun=encode_lun(lun),
        ),
        tags,
        numbers,
        cdbs,
        lengths,
        lengths,
        payloads,
        st.booleans(),
        st.integers(0, 7),
        st.booleans(),
        st.sampled_from([1, 1, 1, 0, 5]),
    ),
    st.builds(
        lambda itt, tag, number, offset, data, final: data_out(itt, tag, number, offset, data, final=final),
        tags,
        st.sampled_from([1, 2, 3, pdu.NO_TAG]),
        st.integers(0, 3),
        lengths,
        payloads,
        st.booleans(),
    ),
    st.builds(
        lambda opcode, itt, number, flags, word, data: request(
            opcode, itt, number, flags=flags, word=word, data=data, immediate=True
        ),
        st.integers(0, 63),
        tags,
        numbers,
        st.integers(0, 255),
        st.one_of(tags, st.just(pdu.NO_TAG)),
        payloads,
    ),
    st.binary(max_size=100),
)
parameter_sets = st.builds(
    Parameters,
    segment_max=st.sampled_from([512, 8192]),
    burst_max=st.sampled_from([512, 4096, 262144]),
    first_burst_max=st.just(512),
    initial_r2t=st.booleans(),
    immediate_data=st.booleans(),
)


def held_bytes(session: Session) -> int:
    return sum(len(task.data) + (len(task.transfer.data) if task.transfer else 0) for task in session.tasks.values())


@settings(max_examples=300)
@given(parameter_sets, st.lists(session_requests, max_size=12), st.randoms())
def test_session(parameters: Parameters, requests: list[bytes], rng: random.Random) -> None:
    session = Session(parameters, Nexus(LogicalUnit(64 << 20, Identity(VOLUME_ID, "port"))), command_sn=10, status_sn=0)
    at_work: list[Task] = []
    try:
        for data in requests:
            if len(data) >= 48 and data[0] & 0x3F == pdu.SCSI_COMMAND and rng.random() < 0.8:
                data = data[:24] + session._command_sn.to_bytes(4, "big") + data[28:]  # mostly the right number: get further
            for event in session.receive(data):
                if isinstance(event, Task):
                    at_work.append(event)
                if at_work and rng.random() < 0.5:
                    session.complete(at_work.pop(rng.randrange(len(at_work))), Done())
                    at_work += session.released()
            assert len(session.tasks) <= COMMANDS_MAX + IMMEDIATE_MAX
            assert held_bytes(session) <= 2 * (SOLICITED_BYTES_MAX + (COMMANDS_MAX + IMMEDIATE_MAX) * 65536)
            assert session.wanted <= 48 + SEGMENT_BYTES_MAX + 8
    except ProtocolError:
        return
    while at_work:
        session.complete(at_work.pop(), Done())
        at_work += session.released()


def test_many_writes_that_never_send_their_data() -> None:
    session = Session(Parameters(), Nexus(LogicalUnit(1 << 30, Identity(VOLUME_ID, ""))), command_sn=1, status_sn=0)
    assert session.nexus is not None
    session.nexus.start(encode_lun(1), bytes(16))
    cdb = op.encode_extent(op.WRITE_16, 0, 8192)
    for number in range(1, 1000):
        assert list(session.receive(command(number, number, cdb, writes=4 << 20))) == []
    assert len(session.tasks) == COMMANDS_MAX and held_bytes(session) == 0
    assert len(session.out) == SOLICITED_BYTES_MAX // (4 << 20)


async def test_the_server_outlives_them_all(autojump_clock: object) -> None:
    world, rng = SimWorld(2), random.Random(7)
    target = Target(IQN, "10.0.0.1:3260", VOLUME_ID, MemoryBlockDevice(1 << 20))

    async def lookup(iqn: str) -> Target | None:
        return target if iqn == IQN else None

    server = TargetServer(world, lookup)
    listener = await world.net.listen(TcpAddress("127.0.0.1", 0))
    assert isinstance(listener.address, TcpAddress)
    async with trio.open_nursery() as nursery:
        for number in range(120):
            stream = await world.net.connect(listener.address)
            nursery.start_soon(server.serve_connection, await listener.accept())
            data = b"" if number % 3 == 0 else login(IDENTITY)
            for _ in range(rng.randrange(4)):
                choice = rng.randrange(3)
                if choice == 0:
                    data += rng.randbytes(rng.randrange(200))
                elif choice == 1:
                    data += command(rng.randrange(3), rng.randrange(4), rng.randbytes(16), reads=rng.choice([0, 512, pdu.MASK]))
                else:
                    data += bytes((rng.randrange(256), 0x80, 0, 0)) + rng.randbytes(44)
            await stream.send_all(data)
            if rng.random() < 0.5:
                await stream.send_eof()
            elif rng.random() < 0.5:
                await stream.aclose()
        await trio.sleep(100)  # login deadlines and silence
        assert server.session_count(IQN) == 0
        stream = await world.net.connect(listener.address)
        nursery.start_soon(server.serve_connection, await listener.accept())
        await stream.send_all(login(IDENTITY))
        answer = await stream.receive_some(1000)
        assert answer[36:38] == b"\0\0" and dict(text.decode(bytes(answer[48:])))["TargetPortalGroupTag"] == "1"
        nursery.cancel_scope.cancel()

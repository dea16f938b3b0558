"""The target over a simulated network: batches, slow requests, errors, sessions, time."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

from blockgw.iscsi import pdu
from blockgw.iscsi.chap import Secret
from blockgw.iscsi.login import Access, Refusal
from blockgw.scsi import cdb as op
from blockgw.scsi import sense
from blockgw.scsi.block import MemoryBlockDevice
from blockgw.target.connection import SLOW_MAX
from blockgw.target.server import Limits, TargetServer
from blockgw.target.target import Target
from ring.errors import DiskFault, DiskFull, RingfortError, Unavailable
from ring.world.interface import Buffer, Stream, TcpAddress
from ring.world.sim import SimWorld
from tests.blockgw.initiator import IDENTITY, INITIATOR, IQN, ISID, VOLUME_ID, Answer, answers, command, data_out, login, request

READY = bytes(16)
PORTAL = "10.0.0.1:3260"


def read(lba: int = 0, blocks: int = 1) -> bytes:
    return op.encode_extent(op.READ_16, lba, blocks)


def write(lba: int = 0, blocks: int = 1, flags: int = 0) -> bytes:
    return op.encode_extent(op.WRITE_16, lba, blocks, flags)


class ColdDevice(MemoryBlockDevice):
    """Nothing is at hand: every request waits for ``gate``."""

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.gate = trio.Event()
        self.waiting = 0
        self.most = 0
        self.fault: RingfortError | None = None

    def read_now(self, offset: int, length: int) -> bytes | None:
        return None

    def write_now(self, offset: int, data: Buffer) -> bool:
        return False

    async def _wait(self) -> None:
        self.waiting += 1
        self.most = max(self.most, self.waiting)
        try:
            await self.gate.wait()
        finally:
            self.waiting -= 1
        if self.fault is not None:
            raise self.fault

    async def read(self, offset: int, length: int) -> bytes:
        await self._wait()
        return await super().read(offset, length)

    async def write(self, offset: int, data: Buffer, *, durable: bool = False) -> None:
        await self._wait()
        self.data[offset : offset + len(data)] = data
        self.flushes += durable

    async def flush(self) -> None:
        await self._wait()
        self.flushes += 1


class Peer:
    """An initiator's connection."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self._held = b""

    async def say(self, *requests: bytes) -> None:
        await self.stream.send_all(b"".join(requests))

    async def hear(self, count: int = 1) -> list[Answer]:
        found: list[Answer] = []
        while len(found) < count:
            while len(self._held) < 48 or len(self._held) < self._length():
                more = await self.stream.receive_some(65536)
                assert more, "the target closed"
                self._held += more
            whole, self._held = self._held[: self._length()], self._held[self._length() :]
            found += answers(whole)
        return found

    def _length(self) -> int:
        length = int.from_bytes(self._held[5:8], "big")
        return 48 + length + -length % 4

    async def closed(self) -> bytes:
        """What still came, when the target closes."""
        rest = self._held
        while more := await self.stream.receive_some(65536):
            rest += more
        return rest


class Stage:
    """A target and its portal."""

    def __init__(self, world: SimWorld, device: MemoryBlockDevice, nursery: trio.Nursery, access: Access) -> None:
        self.world = world
        self.device = device
        self.nursery = nursery
        self.target = Target(IQN, PORTAL, VOLUME_ID, device, access)
        self.trouble: RingfortError | None = None
        self.server = TargetServer(world, self._lookup, discover=self._discover, limits=Limits(connections_max=4, logins_max=3))
        self.address = TcpAddress("10.0.0.1", 3260)

    async def _lookup(self, iqn: str) -> Target | None:
        if self.trouble is not None:
            raise self.trouble
        return self.target if iqn == IQN else None

    async def _discover(self) -> list[tuple[str, str]]:
        return [(IQN, PORTAL)]

    async def listen(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        listener = await self.world.net.listen(TcpAddress("127.0.0.1", 0))
        assert isinstance(listener.address, TcpAddress)
        self.address = listener.address
        task_status.started()
        while True:
            self.nursery.start_soon(self.server.serve_connection, await listener.accept())

    async def connect(self) -> Peer:
        return Peer(await self.world.net.connect(self.address))

    async def log_in(self, *, isid: bytes = ISID, attended: bool = True, name: str = INITIATOR) -> Peer:
        """Command 1 is the next one; 2 when ``attended``, for that takes the unit attention."""
        peer = await self.connect()
        await peer.say(login([("InitiatorName", name), *IDENTITY[1:]], isid=isid))
        [heard] = await peer.hear()
        assert heard.login_status == 0
        if attended:
            await peer.say(command(0, 1, READY))
            assert (await peer.hear())[0].sense == sense.POWER_ON
        return peer


@asynccontextmanager
async def stage(device: MemoryBlockDevice | None = None, access: Access | None = None) -> AsyncIterator[Stage]:
    async with trio.open_nursery() as nursery:
        here = Stage(SimWorld(1), device or MemoryBlockDevice(16 << 20), nursery, access or Access())
        await nursery.start(here.listen)
        yield here
        nursery.cancel_scope.cancel()


async def test_a_session_from_login_to_logout(autojump_clock: object) -> None:
    async with stage() as here:
        peer = await here.log_in()
        await peer.say(command(1, 2, write(8), writes=512, data=b"w" * 512), command(2, 3, read(8), reads=512))
        written, back = await peer.hear(2)
        assert written.status == 0 and back.data == b"w" * 512
        await peer.say(request(pdu.LOGOUT, 3, 4, flags=0x80))
        assert answers(await peer.closed())[0].opcode == pdu.LOGOUT_RESPONSE
        await trio.sleep(1)
        assert here.server.session_count(IQN) == 0


async def test_what_came_with_the_login_is_served(autojump_clock: object) -> None:
    async with stage() as here:
        peer = await here.connect()
        await peer.say(login(IDENTITY), command(0, 1, READY), command(1, 2, read(), reads=512)[:30])
        await peer.say(command(1, 2, read(), reads=512)[30:])
        assert [a.opcode for a in await peer.hear(3)] == [pdu.LOGIN_RESPONSE, pdu.SCSI_RESPONSE, pdu.DATA_IN]


async def test_bytes_that_the_acceptor_took_are_used(autojump_clock: object) -> None:
    world = SimWorld(1)
    async with trio.open_nursery() as nursery:
        here = Stage(world, MemoryBlockDevice(1 << 20), nursery, Access())
        listener = await world.net.listen(TcpAddress("127.0.0.1", 0))
        assert isinstance(listener.address, TcpAddress)
        peer = Peer(await world.net.connect(listener.address))
        nursery.start_soon(here.server.serve_connection, await listener.accept(), login(IDENTITY)[:60])
        await peer.say(login(IDENTITY)[60:])
        assert (await peer.hear())[0].login_status == 0
        nursery.cancel_scope.cancel()


async def test_a_batch_is_answered_in_order(autojump_clock: object) -> None:
    async with stage() as here:
        peer = await here.log_in()
        count = 40
        await peer.say(
            *(command(n, 2 + n, write(n), writes=512, data=bytes((n,)) * 512) for n in range(count)),
            *(command(count + n, 2 + count + n, read(n), reads=512) for n in range(count)),
        )
        heard = await peer.hear(2 * count)
        assert [a.itt for a in heard] == list(range(2 * count))
        assert [a.data for a in heard[count:]] == [bytes((n,)) * 512 for n in range(count)]


async def test_solicited_write_and_large_read(autojump_clock: object) -> None:
    async with stage() as here:
        peer = await here.log_in()
        size, payload = 1 << 20, bytes(range(256)) * 4096
        await peer.say(command(1, 2, write(0, size // 512), writes=size))
        sent = 0
        while sent < size:
            [asked] = await peer.hear()
            assert asked.opcode == pdu.R2T and asked.word(40) == sent
            length = asked.word(44)
            parts = [payload[sent + at : sent + at + 65536] for at in range(0, length, 65536)]
            tag = asked.word(20)
            await peer.say(
                *(data_out(1, tag, n, sent + n * 65536, part, final=n == len(parts) - 1) for n, part in enumerate(parts))
            )
            sent += length
        assert (await peer.hear())[0].status == 0
        await peer.say(command(2, 3, read(0, size // 512), reads=size))
        heard = await peer.hear(size // 8192)
        assert b"".join(a.data for a in heard) == payload and heard[-1].flags == 0x81


async def test_slow_reads_do_not_hold_up_others(autojump_clock: object) -> None:
    device = ColdDevice(1 << 20)
    async with stage(device) as here:
        peer = await here.log_in()
        await peer.say(*(command(n, 2 + n, read(n), reads=512) for n in range(40)), command(99, 42, READY))
        assert (await peer.hear())[0].itt == 99
        assert device.waiting == device.most == SLOW_MAX
        device.gate.set()
        assert sorted(a.itt for a in await peer.hear(40)) == list(range(40))
        assert device.most == SLOW_MAX


async def test_fua_and_flush(autojump_clock: object) -> None:
    async with stage() as here:
        peer = await here.log_in()
        await peer.say(command(1, 2, write(0, 1, op.FUA), writes=512, data=b"f" * 512))
        assert (await peer.hear())[0].status == 0 and here.device.flushes == 1
        await peer.say(command(2, 3, op.encode_extent(op.SYNCHRONIZE_CACHE_10, 0, 0)))
        assert (await peer.hear())[0].status == 0 and here.device.flushes == 2
        await peer.say(command(3, 4, op.encode_extent(op.READ_10, 0, 1, op.FUA), reads=512))
        assert (await peer.hear())[0].data == b"f" * 512 and here.device.flushes == 3


async def test_a_flush_that_fails_is_not_good(autojump_clock: object) -> None:
    device = ColdDevice(1 << 20)
    device.fault = Unavailable("no quorum")
    device.gate.set()
    async with stage(device) as here:
        peer = await here.log_in()
        await peer.say(command(2, 2, op.encode_extent(op.SYNCHRONIZE_CACHE_16, 0, 0)))
        assert (await peer.hear())[0].sense == sense.BECOMING_READY


@pytest.mark.parametrize(
    ("fault", "cdb", "expected"),
    [
        (DiskFault("eio"), read(), sense.READ_ERROR),
        (DiskFault("eio"), write(), sense.WRITE_ERROR),
        (DiskFull("full"), write(), sense.SPACE_ALLOCATION_FAILED),
        (Unavailable("now"), read(), sense.BECOMING_READY),
    ],
)
async def test_faults_of_the_device(autojump_clock: object, fault: RingfortError, cdb: bytes, expected: sense.Sense) -> None:
    device = ColdDevice(1 << 20)
    device.fault = fault
    device.gate.set()
    async with stage(device) as here:
        peer = await here.log_in()
        writes = cdb[0] == op.WRITE_16
        await peer.say(command(1, 2, cdb, writes=512, data=bytes(512)) if writes else command(1, 2, cdb, reads=512))
        assert (await peer.hear())[0].sense == expected


async def test_the_other_actions(autojump_clock: object) -> None:
    async with stage() as here:
        peer, data = await here.log_in(), here.device.data
        data[:4096] = b"o" * 4096
        same = op.encode_extent(op.WRITE_SAME_16, 1, 3000)  # more than one step
        await peer.say(command(1, 2, same, writes=512, data=b"s" * 512))
        assert (await peer.hear())[0].status == 0
        assert data[: 3002 * 512] == b"o" * 512 + b"s" * 512 * 3000 + bytes(512)
        unmap = op.encode_unmap_list([(0, 1), (2, 1)])
        await peer.say(command(2, 3, op.encode_unmap(len(unmap)), writes=len(unmap), data=unmap))
        assert (await peer.hear())[0].status == 0
        assert data[:1536] == bytes(512) + b"s" * 512 + bytes(512)
        compare = op.encode_extent(op.VERIFY_10, 0, 2, op.BYTCHK)
        await peer.say(command(3, 4, compare, writes=1024, data=bytes(512) + b"s" * 512))
        assert (await peer.hear())[0].status == 0
        await peer.say(command(4, 5, compare, writes=1024, data=bytes(1024)))
        assert (await peer.hear())[0].sense == sense.MISCOMPARE
        await peer.say(command(5, 6, op.encode_extent(op.VERIFY_16, 0, 8000)))
        assert (await peer.hear())[0].status == 0


async def test_abort_of_a_slow_task(autojump_clock: object) -> None:
    device = ColdDevice(1 << 20)
    async with stage(device) as here:
        peer = await here.log_in()
        await peer.say(command(1, 2, read(), reads=512))
        await trio.sleep(1)
        assert device.waiting == 1
        await peer.say(request(pdu.TASK_MANAGEMENT, 2, 3, flags=0x81, word=1, immediate=True))
        [heard] = await peer.hear()
        assert (heard.opcode, heard.header[2]) == (pdu.TASK_MANAGEMENT_RESPONSE, 0)
        assert device.waiting == 0
        await peer.say(command(3, 3, READY))
        assert (await peer.hear())[0].itt == 3  # nothing came of the aborted one


async def test_a_reset_reaches_every_session(autojump_clock: object) -> None:
    device = ColdDevice(1 << 20)
    async with stage(device) as here:
        one, two = await here.log_in(), await here.log_in(isid=b"\x80second")
        await two.say(*(command(n, 2 + n, write(), writes=512, data=b"x" * 512) for n in range(SLOW_MAX + 4)))
        await trio.sleep(1)
        await one.say(request(pdu.TASK_MANAGEMENT, 9, 2, flags=0x85, immediate=True))
        assert (await one.hear())[0].header[2] == 0
        assert device.waiting == 0
        device.gate.set()
        for peer, number in ((one, 2), (two, 2 + SLOW_MAX + 4)):
            await peer.say(command(1, number, READY), command(2, number + 1, READY))
            first, second = await peer.hear(2)
            assert first.sense == sense.DEVICE_RESET and second.status == 0
        assert not any(device.data[:512])


async def test_a_new_login_replaces_the_session(autojump_clock: object) -> None:
    device = ColdDevice(1 << 20)
    async with stage(device) as here:
        old = await here.log_in()
        await old.say(command(1, 2, write(), writes=512, data=b"x" * 512))
        await trio.sleep(1)
        assert device.waiting == 1
        new = await here.log_in()
        assert device.waiting == 0  # before the new one may write
        assert await old.closed() == b""
        assert here.server.session_count(IQN) == 1
        await new.say(command(1, 2, READY))
        assert (await new.hear())[0].status == 0


async def test_other_initiators_are_left_alone(autojump_clock: object) -> None:
    async with stage() as here:
        first = await here.log_in()
        await here.log_in(name=INITIATOR + "2")
        assert here.server.session_count(IQN) == 2
        await first.say(command(1, 2, READY))
        assert (await first.hear())[0].status == 0


async def test_drop_ends_all_sessions_of_a_target(autojump_clock: object) -> None:
    device = ColdDevice(1 << 20)
    async with stage(device) as here:
        peers = [await here.log_in(isid=bytes((0x80, 0, 0, 0, 0, n))) for n in range(3)]
        await peers[0].say(command(1, 2, read(), reads=512))
        await trio.sleep(1)
        await here.server.drop(IQN)
        assert device.waiting == 0
        for peer in peers:
            assert await peer.closed() == b""


async def test_discovery(autojump_clock: object) -> None:
    async with stage(access=Access(Secret("user", "secret-secret"))) as here:
        peer = await here.connect()
        await peer.say(login([("InitiatorName", INITIATOR), ("SessionType", "Discovery")]))
        await peer.say(request(pdu.TEXT, 1, 1, data=b"SendTargets=All\0"))
        assert (await peer.hear(2))[1].keys == {"TargetName": IQN, "TargetAddress": f"{PORTAL},1"}


@pytest.mark.parametrize(
    ("trouble", "target", "status"),
    [
        (None, IQN + "x", Refusal.NOT_FOUND),
        (Unavailable(""), IQN, Refusal.UNAVAILABLE),
        (DiskFault(""), IQN, Refusal.OUT_OF_RESOURCES),
    ],
)
async def test_targets_that_are_not_there(
    autojump_clock: object, trouble: RingfortError | None, target: str, status: Refusal
) -> None:
    async with stage() as here:
        here.trouble = trouble
        peer = await here.connect()
        await peer.say(login([*IDENTITY[:2], ("TargetName", target)]))
        assert answers(await peer.closed())[0].login_status == status.value


async def test_chap_is_asked_for(autojump_clock: object) -> None:
    async with stage(access=Access(Secret("user", "secret-secret"))) as here:
        peer = await here.connect()
        await peer.say(login(IDENTITY))
        assert answers(await peer.closed())[0].login_status == Refusal.AUTHENTICATION.value


async def test_login_takes_no_longer_than_its_deadline(autojump_clock: object) -> None:
    async with stage() as here:
        peer = await here.connect()
        await peer.say(login(IDENTITY, following=None))
        started = trio.current_time()
        await peer.hear()
        assert await peer.closed() == b""
        assert 14 < trio.current_time() - started < 17


async def test_connections_have_a_limit(autojump_clock: object) -> None:
    async with stage() as here:
        silent = [await here.connect() for _ in range(3)]
        await trio.sleep(1)
        extra = await here.connect()
        assert await extra.closed() == b""
        for peer in silent:
            await peer.closed()  # at the deadline
        assert (await here.log_in()) is not None


async def test_a_silent_initiator_is_asked_and_then_dropped(autojump_clock: object) -> None:
    async with stage() as here:
        peer = await here.log_in()
        [ping] = await peer.hear()
        assert (ping.opcode, ping.itt) == (pdu.NOP_IN, pdu.NO_TAG)
        await peer.say(request(pdu.NOP_OUT, pdu.NO_TAG, 2, word=ping.word(20), immediate=True))
        started = trio.current_time()
        await peer.closed()
        assert 60 < trio.current_time() - started < 95


async def test_a_peer_that_takes_no_answers_stops_only_itself(autojump_clock: object) -> None:
    async with stage() as here:
        deaf, other = await here.log_in(), await here.log_in(isid=b"\x80second")
        await deaf.say(*(command(n, 2 + n, read(0, 8192), reads=4 << 20) for n in range(100)))
        await trio.sleep(5)
        await other.say(command(1, 2, read(), reads=512))
        assert (await other.hear())[0].status == 0
        connection = next(c for key, c in here.server._sessions.items() if key.isid == ISID)
        assert connection.session.out_bytes <= 8 << 20
        await trio.sleep(120)
        assert here.server.session_count(IQN) == 0  # nobody asked the other one's initiator either


async def test_a_protocol_error_ends_one_connection(autojump_clock: object) -> None:
    async with stage() as here:
        bad, good = await here.log_in(), await here.log_in(isid=b"\x80second")
        await bad.say(command(1, 2, read(), reads=512), command(2, 77, read(), reads=512))
        assert [a.opcode for a in answers(await bad.closed())] == [pdu.DATA_IN]  # what was right is answered
        await good.say(command(1, 2, READY))
        assert (await good.hear())[0].status == 0

"""The network between simulated nodes: listeners, streams, and what can go wrong between two hosts.

Bytes take a little time, arrive in order and may be cut anywhere; a sender waits when a window's worth is on its way.  Faults are
per direction: a ``cut`` link holds what is sent until it heals (as TCP does, by sending again), connecting over it times out.
A connection can be reset, also in the middle of a body (``reset_chance``); a node that loses power leaves its peers half-open:
they learn of it when they send to the node's next life.
Host names are node names; "127.0.0.1" and "localhost" are the node itself.
"""

from __future__ import annotations

import errno
import os
import random
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import trio

from ring.world.interface import Address, Buffer, File, Listener, Stream, TcpAddress, UnixAddress
from ring.world.sim import timer
from ring.world.sim.life import Life

WINDOW_BYTES = 1 << 18
SEGMENT_BYTES = 1 << 16
LATENCY_S = (50e-6, 500e-6)
SYN_WAITS_S = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
SHORT_READ_ONE_IN = 16
FIRST_PORT = 40_000
_LOCAL = ("127.0.0.1", "localhost", "::1", "")


@dataclass(slots=True)
class Link:
    """One direction between two hosts."""

    cut: bool = False
    delay_s: float = 0.0
    reset_chance: float = 0.0  # per send
    jitter_s: float = 0.0  # added to each, up to so much: messages of different connections overtake each other
    repeat_chance: float = 0.0  # of a message that its sender sends again, on another connection (for who plays messages)
    losses: int = 0  # how often what was under way has vanished without a word


class SimNetwork:
    def __init__(self, rng: random.Random, trace: Callable[[str], None]) -> None:
        self.rng = rng
        self.trace = trace
        self.up: dict[str, Life] = {}  # the hosts that run
        self.listeners: dict[tuple[str, Address], SimListener] = {}
        self._links: dict[tuple[str, str], Link] = {}
        self._streams: dict[int, SimStream] = {}  # all that are open
        self._held: dict[int, SimStream] = {}  # streams with bytes that a cut link holds
        self._serial = 0
        self._port = FIRST_PORT

    # ---- for the nemesis

    def link(self, source: str, target: str) -> Link:
        """The direction from ``source`` to ``target``; change it at will, but heal it by ``heal``."""
        found = self._links.get((source, target))
        if found is None:
            found = self._links[source, target] = Link()
        return found

    def cut(self, source: str, target: str) -> None:
        self.link(source, target).cut = True
        self.trace(f"cut {source}->{target}")

    def partition(self, one: list[str], other: list[str]) -> None:
        """No byte between the two groups, either way."""
        for a in one:
            for b in other:
                self.cut(a, b)
                self.cut(b, a)

    def heal(self) -> None:
        """All links as new; what was held goes out."""
        self.mend(list(self._links))
        self.trace("network healed")

    def start_host(self, life: Life) -> None:
        self.up[life.name] = life

    def stop_host(self, name: str, *, silent: bool) -> None:
        """Its streams break; ``silent``: the other ends are not told."""
        del self.up[name]
        for stream in list(self._streams.values()):
            if stream.host == name:
                stream.crash(silent=silent and stream.remote_host != name)

    def keep(self, stream: SimStream) -> None:
        self._streams[stream.serial] = stream

    def forget(self, stream: SimStream) -> None:
        self._streams.pop(stream.serial, None)
        self._held.pop(stream.serial, None)

    def next_serial(self) -> int:
        self._serial += 1
        return self._serial

    def next_port(self) -> int:
        self._port += 1
        return self._port

    def hold(self, stream: SimStream) -> None:
        self._held[stream.serial] = stream

    def latency(self, source: str, target: str) -> float:
        link = self.link(source, target)
        jitter_s = self.rng.uniform(0, link.jitter_s) if link.jitter_s else 0.0
        return self.rng.uniform(*LATENCY_S) + link.delay_s + jitter_s

    def mend(self, links: Iterable[tuple[str, str]]) -> None:
        """These links (source, target) as new; what they held goes out."""
        mended = set(links)
        for key in mended:
            found = self._links.get(key)
            if found is not None:
                self._links[key] = Link(losses=found.losses)
        held = [stream for stream in self._held.values() if (stream.host, stream.remote_host) in mended]
        for stream in held:
            del self._held[stream.serial]
        for stream in held:
            stream.release()

    def half_open(self, one: str, other: str) -> None:
        """Somebody between them forgot their connections: what is sent on them arrives nowhere, and neither end is told."""
        for key in ((one, other), (other, one)):
            self.link(*key).losses += 1
        for stream in self._streams.values():
            if {stream.host, stream.remote_host} == {one, other}:
                stream.forgotten = True
        self.trace(f"connections between {one} and {other} are half-open")


class SimStream:
    """One end of a connection."""

    def __init__(self, network: SimNetwork, life: Life, remote_host: str) -> None:
        self.serial = network.next_serial()
        self._network = network
        self._life = life
        self.host = life.name
        self.remote_host = remote_host
        self.peer: SimStream | None = None
        self._incoming: deque[tuple[float, bytes]] = deque()  # arrival, bytes (b"": the end)
        self._queued_bytes = 0  # on their way here
        self._outbox: deque[bytes] = deque()  # held by a cut link
        self._outbox_bytes = 0
        self._last_arrival = 0.0
        self._wake: trio.Event | None = None  # the receiver's
        self._room: trio.Event | None = None  # the sender's
        self._sending = False
        self._eof_sent = False
        self._closed = False
        self._broken = False
        self._vanished = False  # lost its power: never answers again
        self.forgotten = False  # by the network: what it sends arrives nowhere

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        if self._wake is not None:
            raise trio.BusyResourceError("another task is receiving on this stream")
        await trio.lowlevel.checkpoint()
        while True:
            if self._life.frozen:
                await self._life.awake()
            self._check()
            if self._incoming and self._incoming[0][0] <= trio.current_time():
                return self._take(max_bytes)
            self._wake = trio.Event()
            try:
                if self._incoming:
                    with trio.move_on_at(self._incoming[0][0]):
                        await self._wake.wait()
                else:
                    await self._wake.wait()
            finally:
                self._wake = None

    async def send_all(self, data: Buffer) -> None:
        if self._sending:
            raise trio.BusyResourceError("another task is sending on this stream")
        await trio.lowlevel.checkpoint()
        self._sending = True
        try:
            view = memoryview(data).cast("B")
            for at in range(0, len(view), SEGMENT_BYTES):
                await self._wait_for_room()
                if self._life.frozen:
                    await self._life.awake()
                    self._check()
                self._transmit(bytes(view[at : at + SEGMENT_BYTES]))
            self._check()
        finally:
            self._sending = False

    async def send_eof(self) -> None:
        if self._sending:
            raise trio.BusyResourceError("another task is sending on this stream")
        await trio.lowlevel.checkpoint()
        self._check()
        if not self._eof_sent:
            self._transmit(b"")
            self._eof_sent = True

    async def send_file(self, file: File, offset: int, length: int) -> None:
        end = offset + length
        while offset < end:
            data = await file.pread(offset, min(SEGMENT_BYTES, end - offset))
            if not data:
                raise OSError(errno.EIO, "the file is shorter than what was to be sent of it")
            await self.send_all(data)
            offset += len(data)

    async def aclose(self) -> None:
        if self._closed or not self._life.alive:
            return
        if not self._broken and not self._eof_sent:
            self._transmit(b"")
        self._closed = True
        if not self._outbox:
            self._network.forget(self)
        self._rouse()

    def reset(self) -> None:
        """The connection is lost, for both ends."""
        if not self._broken:
            self._network.trace(f"reset {self.host}-{self.remote_host}")
        for end in (self, self.peer):
            if end is not None and not end._broken:
                end._broken = True
                end._network.forget(end)
                end._rouse()

    def crash(self, *, silent: bool) -> None:
        """This end's node is gone.  ``silent``: so suddenly that the other end is not told."""
        self._network.forget(self)
        if silent:
            self._vanished = True
        else:
            self.reset()

    def release(self) -> None:
        """The link is whole again: send what it held."""
        outbox, self._outbox = self._outbox, deque()
        self._outbox_bytes = 0
        if not self._broken:
            for data in outbox:
                self._transmit(data)
        self._rouse()

    def _transmit(self, data: bytes) -> None:
        network, peer = self._network, self.peer
        assert peer is not None
        if self.forgotten:
            return
        link = network.link(self.host, self.remote_host)
        if link.cut or self._outbox:
            self._outbox.append(data)
            self._outbox_bytes += len(data)
            network.hold(self)
            return
        if peer._vanished:
            if self.remote_host in network.up:  # its next life knows nothing of this connection
                self.reset()
            return
        if data and peer._closed:
            self.reset()
            return
        if link.reset_chance and network.rng.random() < link.reset_chance:
            self.reset()
            return
        arrival = max(peer._last_arrival, trio.current_time() + network.latency(self.host, self.remote_host))
        peer._last_arrival = arrival
        peer._incoming.append((arrival, data))
        peer._queued_bytes += len(data)
        if peer._wake is not None:
            peer._wake.set()

    def _take(self, max_bytes: int | None) -> bytes:
        arrival, data = self._incoming.popleft()
        size = SEGMENT_BYTES if max_bytes is None else max_bytes
        if len(data) > 1 and self._network.rng.randrange(SHORT_READ_ONE_IN) == 0:
            size = min(size, self._network.rng.randrange(1, len(data)))
        if not data:
            self._incoming.appendleft((arrival, data))  # the end stays the end
            return b""
        if len(data) > size:
            self._incoming.appendleft((arrival, data[size:]))
            data = data[:size]
        self._queued_bytes -= len(data)
        peer = self.peer
        if peer is not None and peer._room is not None:
            peer._room.set()
        return data

    async def _wait_for_room(self) -> None:
        assert self.peer is not None
        while True:
            self._check()
            if self._eof_sent:
                raise trio.ClosedResourceError("the end was sent already")
            if self.peer._queued_bytes + self._outbox_bytes < WINDOW_BYTES:
                return
            self._room = trio.Event()
            try:
                await self._room.wait()
            finally:
                self._room = None

    def _check(self) -> None:
        self._life.check()
        if self._closed:
            raise trio.ClosedResourceError("the stream was closed on this side")
        if self._broken:
            raise trio.BrokenResourceError("the connection is lost")

    def _rouse(self) -> None:
        for event in (self._wake, self._room):
            if event is not None:
                event.set()


class SimListener:
    def __init__(self, network: SimNetwork, life: Life, key: Address, address: Address) -> None:
        self._network = network
        self._life = life
        self._key = key  # in network.listeners
        self._address = address
        self._waiting: deque[SimStream] = deque()
        self._wake = trio.Event()
        self.closed = False

    @property
    def address(self) -> Address:
        return self._address

    async def accept(self) -> Stream:
        await trio.lowlevel.checkpoint()
        while True:
            if self._life.frozen:
                await self._life.awake()
            self._life.check()
            if self.closed:
                raise trio.ClosedResourceError("the listener was closed")
            if self._waiting:
                return self._waiting.popleft()
            await self._wake.wait()

    async def aclose(self) -> None:
        self.shut()

    def shut(self) -> None:
        if not self.closed:
            self.closed = True
            del self._network.listeners[self._life.name, self._key]
            for stream in self._waiting:
                stream.reset()
            self._wake.set()

    def arrive(self, stream: SimStream) -> None:
        self._waiting.append(stream)
        self._wake.set()
        self._wake = trio.Event()


class SimNet:
    """One node's use of the network."""

    def __init__(self, network: SimNetwork, life: Life) -> None:
        self._network = network
        self._life = life

    async def listen(self, address: Address, *, backlog: int = 1024) -> Listener:
        await trio.lowlevel.checkpoint()
        self._life.check()
        if isinstance(address, TcpAddress):
            address = TcpAddress(address.host, address.port or self._network.next_port())
            key: Address = TcpAddress("", address.port)
        else:
            key = address
        if (self._life.name, key) in self._network.listeners:
            raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
        listener = SimListener(self._network, self._life, key, address)
        self._network.listeners[self._life.name, key] = listener
        self._life.at_end(listener.shut)
        return listener

    async def connect(self, address: Address) -> Stream:
        await trio.lowlevel.checkpoint()
        self._life.check()
        network, here = self._network, self._life.name
        key: Address
        if isinstance(address, UnixAddress):
            there, key = here, address
            if (here, key) not in network.listeners:
                raise OSError(errno.ENOENT, os.strerror(errno.ENOENT), address.path)
        else:
            there = here if address.host in _LOCAL else address.host
            key = TcpAddress("", address.port)
            await self._shake_hands(there)
        await timer.sleep(network.latency(here, there))
        if self._life.frozen:
            await self._life.awake()
        self._life.check()
        listener = network.listeners.get((there, key))
        if listener is None:
            raise OSError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED), str(address))
        mine, theirs = SimStream(network, self._life, there), SimStream(network, network.up[there], here)
        mine.peer, theirs.peer = theirs, mine
        network.keep(mine)
        network.keep(theirs)
        listener.arrive(theirs)
        return mine

    async def _shake_hands(self, there: str) -> None:
        """Wait for the links to be whole and the host to be up, as long as a kernel would."""
        network, here = self._network, self._life.name
        for wait_s in SYN_WAITS_S:
            if there in network.up and not network.link(here, there).cut and not network.link(there, here).cut:
                return
            await trio.sleep(wait_s)
            self._life.check()
        raise OSError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))

"""Peer: the way to one worker's devices (the client's end of the node protocol).

All questions to one address share a connection: whatever is asked while the sender is busy travels in the next frame.  Large
bodies have connections of their own, pooled.  When a connection is lost, everything that waits on it fails with Unavailable:
whether a write happened is then not known.  What only reads is asked once more, over a new connection, within the time that it has:
that the other end was started anew is noticed by whoever uses the connection next.  A peer that cannot be reached is left alone for
a moment (0.1 s to 1 s), so that asking it costs nothing meanwhile.

Neighbours: protocol (messages), frames, remote (a device behind a peer), server (the other end).
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar
from zlib import crc32

import trio

from ring.errors import FormatError, RingfortError, Unavailable
from ring.service.errors import StaleRing
from ring.service.overlap import Claim, RingSource
from ring.wire.message import Piece
from ring.world.interface import Address, Buffer, World
from storage.client import protocol as wire
from storage.client.errors import ClockAhead, PromisedAbove
from storage.client.frames import Frames
from storage.client.node import Debt, Version, WriteReply
from storage.client.protocol import FrameType
from storage.client.watch import Watch
from storage.erasure.fragment import Fragment, encode_fragment

S = TypeVar("S")
RETRY_MIN_S, RETRY_MAX_S = 0.1, 1.0
IDLE_BODIES_MAX = 8
WAITING_MAX = 4096


@dataclass(frozen=True, slots=True)
class PeerLimits:
    connect_s: float = 3.0  # to connect and shake hands
    answer_s: float = 12.0  # for any question; longer than a write and its row may take
    stall_s: float = 10.0  # between two pieces of a body


class _Waiting:
    __slots__ = ("answer", "error", "event", "lost")

    def __init__(self) -> None:
        self.event = trio.Event()
        self.answer: wire.Answer | None = None
        self.error: RingfortError | None = None
        self.lost = False  # a connection that was there ended

    @property
    def over(self) -> bool:
        return self.event.is_set()

    def expire(self) -> None:
        self.event.set()


class Peer:
    """``nursery`` runs its connection and must outlive the last question."""

    def __init__(
        self,
        world: World,
        nursery: trio.Nursery,
        address: Address,
        secret: bytes,
        *,
        ring_version: Callable[[], int] = lambda: 0,
        limits: PeerLimits | None = None,
    ) -> None:
        self._world = world
        self._nursery = nursery
        self.address = address
        self._secret = secret
        self._ring_version = ring_version
        self._limits = limits or PeerLimits()
        self._watch = Watch(nursery, self._limits.answer_s)
        self._next_id = 0
        self._waiting: dict[int, _Waiting] = {}
        self._outbox: deque[wire.Ask] = deque()
        self._wake = trio.Event()
        self._running: trio.CancelScope | None = None
        self._heard = 0.0  # when the peer last said anything
        self._retry_at = 0.0
        self._retry_s = 0.0
        self._idle: list[Frames] = []
        self.peer_minor = 0  # version of the protocol, as it last stated
        self.peer_ring_version = 0  # likewise
        nursery.start_soon(self._close_idle)

    # ---- questions

    async def ask(self, device: int, question: wire.Question, shape: wire.Shape[S], edition: int = 0, *, policy: int = 0) -> S:
        """Raises what the node raised, or Unavailable."""
        asked = trio.current_time()
        number, waiting = self._queue(device, question, edition, policy)
        try:
            self._watch.add(waiting)
            await waiting.event.wait()
        finally:
            self._waiting.pop(number, None)
            waiting.event.set()  # also of one that nobody waits for any more
        if waiting.lost and waiting.answer is None and wire.only_reads(question):
            number, waiting = self._queue(device, question, edition, policy)
            try:
                with trio.move_on_at(asked + self._limits.answer_s):
                    await waiting.event.wait()
            finally:
                self._waiting.pop(number, None)
        if waiting.error is not None:
            raise waiting.error
        if waiting.answer is None:
            if self._heard < asked and self._running is not None:
                self._running.cancel()  # not a word since: the connection may be half open
            raise Unavailable(f"the node at {self.address} did not answer in {self._limits.answer_s:g} s")
        if waiting.answer.failure is not None:
            raise wire.error_of(waiting.answer.failure)
        return wire.decode(waiting.answer.value, shape)

    def _queue(self, device: int, question: wire.Question, edition: int, policy: int) -> tuple[int, _Waiting]:
        if self._running is None:
            if trio.current_time() < self._retry_at:
                raise Unavailable(f"the node at {self.address} could not be reached a moment ago")
            self._running = trio.CancelScope()
            self._nursery.start_soon(self._run, self._running)
        if len(self._waiting) >= WAITING_MAX:
            raise Unavailable(f"the node at {self.address} has {WAITING_MAX} questions unanswered")
        self._next_id += 1
        waiting = self._waiting[self._next_id] = _Waiting()
        self._outbox.append(wire.Ask(self._next_id, device, question, edition, policy))
        self._wake.set()
        return self._next_id, waiting

    async def _run(self, scope: trio.CancelScope) -> None:
        """One connection's life."""
        error: RingfortError = Unavailable(f"the connection to the node at {self.address} ended")
        frames: Frames | None = None
        try:
            with scope:
                frames = await self._connect("questions")
                self._retry_s = 0.0
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._send, frames, self.peer_minor, nursery.cancel_scope)
                    error = await self._receive(frames)
                    nursery.cancel_scope.cancel()
        except Unavailable as failure:
            error = failure
            self._retry_s = min(RETRY_MAX_S, self._retry_s * 2 or RETRY_MIN_S)
            self._retry_at = trio.current_time() + self._retry_s
        finally:
            self._running = None
            self._outbox.clear()
            waiting, self._waiting = self._waiting, {}
            for one in waiting.values():
                one.error = Unavailable(error.message, hint=error.hint)
                one.lost = frames is not None
                one.event.set()
            if frames is not None:
                await _close(frames)

    async def _send(self, frames: Frames, peer_minor: int, scope: trio.CancelScope) -> None:
        try:
            while True:
                await self._wake.wait()
                self._wake = trio.Event()
                while self._outbox:
                    batch, size = [], 0
                    while self._outbox and size < wire.BATCH_BYTES:
                        ask = self._outbox.popleft()
                        if max(wire.minor_of(ask.question), wire.minor_of_policy(ask.policy)) > peer_minor:
                            self._too_old(ask.id)
                        elif ask.id in self._waiting:  # somebody still wants to know
                            size += len(ask.question.data) if isinstance(ask.question, wire.PutSmall) else 200
                            batch.append(ask)
                    if batch:
                        await frames.send(wire.encode_frame(FrameType.QUESTIONS, wire.encode(batch)))
        except Unavailable:
            scope.cancel()

    def _too_old(self, number: int) -> None:
        waiting = self._waiting.get(number)
        if waiting is not None:
            text = f"the node at {self.address} speaks an older version of the node protocol, which cannot answer this"
            waiting.error = Unavailable(text, hint="upgrade that node")
            waiting.event.set()

    def _check_minor(self, minor: int) -> None:
        if self.peer_minor < minor:
            text = f"the node at {self.address} speaks an older version of the node protocol, which knows one storage policy"
            raise Unavailable(text, hint="upgrade that node")

    async def _receive(self, frames: Frames) -> RingfortError:
        """Until the connection ends; why it did."""
        try:
            while True:
                _, payload = await frames.expect(FrameType.ANSWERS)
                self._heard = trio.current_time()
                for answer in wire.decode(payload, wire.ANSWERS):
                    waiting = self._waiting.get(answer.id)
                    if waiting is not None:
                        waiting.answer = answer
                        waiting.event.set()
        except (Unavailable, FormatError) as error:
            return error

    # ---- bodies

    async def get_body(self, ask: wire.GetBody) -> tuple[Version, AsyncIterator[Piece]] | None:
        frames, payload = await self._begin(FrameType.GET, wire.encode(ask), FrameType.FOUND, ask.policy)
        version = wire.decode(payload, wire.VERSION)
        if version is None:
            self.give_back(frames)
            return None
        return version, self._pieces(frames)

    async def _pieces(self, frames: Frames) -> AsyncIterator[Piece]:
        whole = False
        try:
            while True:
                with self.stall():
                    head = await frames.head()
                if head is None:
                    raise Unavailable(f"the node at {self.address} closed the connection in the middle of a body")
                kind, length, checksum = head
                match kind:
                    case FrameType.DATA:
                        with self.stall():
                            data = await frames.payload(length, checksum)
                        yield data
                    case FrameType.DATA_PLAIN:
                        while length:
                            with self.stall():
                                data = await frames.some(min(length, wire.DATA_BYTES))
                            length -= len(data)
                            yield data
                    case FrameType.END | FrameType.FAILED:
                        payload = await frames.payload(length, checksum)
                        whole = True
                        if kind is FrameType.FAILED:
                            raise wire.error_of(wire.decode(payload, wire.FAILURE))
                        return
                    case _:
                        raise Unavailable(f"the node at {self.address} sent a frame of type {kind.name} in a body")
        except FormatError as error:
            raise Unavailable(f"the node at {self.address} sent what cannot be read: {error.message}") from error
        finally:
            if whole:
                self.give_back(frames)
            else:
                await _close(frames)

    async def put_body(self, ask: wire.PutBody) -> RemoteUpload:
        frames, _ = await self._begin(FrameType.PUT, wire.encode(ask), FrameType.READY, ask.policy)
        return RemoteUpload(self, frames)

    async def _begin(self, kind: FrameType, payload: bytes, wanted: FrameType, policy: int) -> tuple[Frames, bytes]:
        """Ask on an idle connection, or on a new one: an idle one may have been closed by the peer meanwhile."""
        while True:
            reused = bool(self._idle)
            frames = self._idle.pop() if reused else await self._connect("bodies")
            keep = False
            try:
                self._check_minor(wire.minor_of_policy(policy))
                with self.stall():
                    await frames.send(wire.encode_frame(kind, payload))
                    answer, content = await frames.expect(wanted, FrameType.FAILED)
                keep = True
            except FormatError as error:
                raise Unavailable(f"the node at {self.address} sent what cannot be read: {error.message}") from error
            except Unavailable:
                if not reused:
                    raise
                continue
            finally:
                if not keep:
                    await _close(frames)
            if answer is FrameType.FAILED:
                self.give_back(frames)
                raise wire.error_of(wire.decode(content, wire.FAILURE))
            return frames, content

    def give_back(self, frames: Frames) -> None:
        if len(self._idle) < IDLE_BODIES_MAX:
            self._idle.append(frames)
        else:
            self._nursery.start_soon(_close, frames)

    async def _close_idle(self) -> None:
        """At the end."""
        try:
            await trio.sleep_forever()
        finally:
            for frames in self._idle:
                await _close(frames)

    # ----

    async def _connect(self, purpose: str) -> Frames:
        frames: Frames | None = None
        done = False
        try:
            with trio.fail_after(self._limits.connect_s):
                stream = await self._world.net.connect(self.address)
                frames = Frames(stream, payload_bytes_max=wire.HANDSHAKE_BYTES_MAX)
                handshake = wire.Handshake(self._secret, self._world.entropy.token(wire.NONCE_BYTES), self._ring_version())
                _, challenge = await frames.expect(FrameType.CHALLENGE)
                await frames.send(handshake.prove(challenge, purpose))
                _, welcome = await frames.expect(FrameType.WELCOME)
                handshake.finish(welcome)
            frames.payload_bytes_max = wire.MESSAGE_BYTES_MAX
            self.peer_minor, self.peer_ring_version = handshake.peer_minor, handshake.peer_ring_version
            self._heard = trio.current_time()
            done = True
            return frames
        except (OSError, FormatError, trio.TooSlowError) as error:
            raise Unavailable(f"the node at {self.address} cannot be reached: {error or 'no answer in time'}") from error
        finally:
            if frames is not None and not done:
                await _close(frames)

    @contextmanager
    def stall(self) -> Iterator[None]:
        """A bound on one step of a body."""
        try:
            with trio.fail_after(self._limits.stall_s):
                yield
        except trio.TooSlowError:
            raise Unavailable(f"the node at {self.address} stalled for {self._limits.stall_s:g} s") from None


class RemoteUpload:
    """Implements storage.client.node.Upload."""

    def __init__(self, peer: Peer, frames: Frames) -> None:
        self.claim: Claim | None = None
        self.source: RingSource | None = None  # the node that it was begun at
        self._peer = peer
        self._frames: Frames | None = frames

    async def write(self, data: Buffer) -> None:
        for at in range(0, len(data), wire.DATA_BYTES):
            piece = data if len(data) <= wire.DATA_BYTES else memoryview(data)[at : at + wire.DATA_BYTES]
            await self._send(wire.encode_head(FrameType.DATA, len(piece), crc32(piece)), piece)

    async def commit(self, version: Version, debt: Debt | None) -> WriteReply:
        return await self._end(wire.Commit(version, debt, self._edition))

    async def stage(self, version: Version, fragment: Fragment, *, seen: bool = False, promised: bool = False) -> WriteReply:
        """Of storage.client.fragments.FragmentUpload."""
        return await self._end(wire.Commit(version, None, self._edition, encode_fragment(fragment), seen, promised))

    @property
    def _edition(self) -> int:
        return self.claim.edition if self.claim is not None else 0

    async def _end(self, commit: wire.Commit) -> WriteReply:
        await self._send(wire.encode_frame(FrameType.COMMIT, wire.encode(commit)), b"")
        assert self._frames is not None
        frames = self._frames
        try:
            with self._peer.stall():
                kind, payload = await frames.expect(FrameType.DONE, FrameType.FAILED)
        except FormatError as error:
            raise Unavailable(f"the node at {self._peer.address} sent what cannot be read: {error.message}") from error
        refusal = wire.error_of(wire.decode(payload, wire.FAILURE)) if kind is FrameType.FAILED else None
        if isinstance(refusal, StaleRing) and self.claim is not None:
            self.claim.refused(refusal, self.source)
        if isinstance(refusal, (StaleRing, PromisedAbove, ClockAhead)):
            raise refusal  # the upload is still there
        self._frames = None
        self._peer.give_back(frames)
        if refusal is not None:
            raise refusal
        return wire.decode(payload, wire.WRITE_REPLY)

    async def abort(self) -> None:
        frames, self._frames = self._frames, None
        if frames is not None:
            await _close(frames)

    async def _send(self, head: bytes, data: Buffer) -> None:
        if self._frames is None:
            raise Unavailable("the upload is over")
        with self._peer.stall():
            await self._frames.send(head)
            if data:
                await self._frames.send(data)


async def _close(frames: Frames) -> None:
    """Without waiting, whatever happens around it."""
    with trio.CancelScope(shield=True) as scope:
        scope.cancel()
        await frames.aclose()

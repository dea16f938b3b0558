"""The node protocol: its bytes, its handshake, and both ends against peers that lie, hang or vanish."""

from __future__ import annotations

import hashlib
import hmac
import pathlib
from dataclasses import replace

import msgspec
import pytest
import trio
import trio.testing

from ring.errors import DiskFault, FormatError, RingfortError, Unavailable
from ring.names import Path, Span
from ring.service.errors import StaleRing
from ring.timestamp import Timestamp
from ring.world.interface import Listener, Stream, TcpAddress
from ring.world.sim import SimWorld
from storage.client import protocol as wire
from storage.client.errors import ClockAhead, NoQuorum, ObjectNotFound, PromisedAbove, Superseded
from storage.client.fake_node import FakeBooks, FakeObjects
from storage.client.fragment_messages import Stage
from storage.client.frames import Frames
from storage.client.interface import Row
from storage.client.local import LocalNode
from storage.client.node import Debt, Kind, Node, Promised, Version, WriteReply
from storage.client.payer import RowPayer
from storage.client.peer import Peer, PeerLimits
from storage.client.remote import RemoteNode
from storage.client.server import NodeServer
from storage.object.errors import DeviceOutOfService
from tests.storage.client.ground import HASHER, make_device

SECRET, OTHER = b"s" * 32, b"t" * 32
ADDRESS = TcpAddress("localhost", 6200)
OBJECT = Path("AUTH_a", "c", "o")
GOLDEN = pathlib.Path(__file__).parents[2] / "golden" / "node-protocol.bin"


def golden() -> bytes:
    """A handshake with fixed nonces, frames of questions and of answers, and the end of a fragment."""
    server = wire.Handshake(SECRET, b"S" * 32, 7)
    client = wire.Handshake(SECRET, b"C" * 32, 6)
    challenge = server.challenge()
    proof = client.prove(challenge[wire.HEAD.size :], "questions")
    welcome = server.welcome(proof[wire.HEAD.size :])
    client.finish(welcome[wire.HEAD.size :])
    assert (client.peer_ring_version, server.peer_ring_version, server.purpose) == (7, 6, "questions")
    version = Version(OBJECT, Timestamp(5, 1), Kind.OBJECT, 4, "e", "text/plain", {"x-object-meta-a": "1"}, Timestamp(6))
    debt = Debt(Row("o", Timestamp(5), 4, "e", "text/plain"), OBJECT.parent, (1, 2))
    asks = [wire.Ask(1, 3, wire.PutSmall(version, b"data", debt)), wire.Ask(2, 3, wire.Head(OBJECT))]
    compare = [wire.Ask(3, 3, wire.Digests("object", 5, 6)), wire.Ask(4, 3, wire.Leaf("container", 2, 9, 6))]
    rings = [
        wire.Ask(5, 3, wire.Head(OBJECT), 8),
        wire.Ask(6, 0, wire.EditionFile()),
        wire.Ask(7, 0, wire.RingPart("object", 4, 9)),
        wire.Ask(8, 3, wire.Head(OBJECT), 8, 1),
    ]
    ballot = Timestamp(9, 1)
    promises = [wire.Ask(9, 3, wire.Promise(OBJECT, ballot, [Timestamp(7)])), wire.Ask(10, 3, wire.Release(OBJECT, ballot))]
    promised = [
        wire.Answer(9, wire.raw(Promised(True, ballot, replace(version, origin=Timestamp(4)), True))),
        wire.Answer(1, wire.raw(WriteReply(Timestamp(9), True, True))),
        wire.Answer(1, wire.raw(None), wire.failure_of(PromisedAbove("promised", ballot))),
    ]
    gone = Version(OBJECT, ballot, Kind.TOMBSTONE)
    staged = [wire.Ask(11, 3, Stage(gone, None, False, True), 8, 1), wire.Ask(12, 3, Stage(version, b"data", True), 0, 1)]
    staged.append(wire.Ask(13, 3, wire.Post(OBJECT, {"x-object-meta-a": "2"}, "", Timestamp(10), version.named)))
    commit = wire.Commit(version, None, 8, b"fragment", False, True)
    failure = wire.failure_of(Superseded("newer", Timestamp(9)))
    stale = wire.failure_of(StaleRing("older", edition=9))
    answers = [wire.Answer(2, wire.raw(version)), wire.Answer(1, wire.raw(None), failure), wire.Answer(5, wire.raw(None), stale)]
    return b"".join(
        [
            challenge,
            proof,
            welcome,
            wire.encode_frame(wire.FrameType.QUESTIONS, wire.encode(asks)),
            wire.encode_frame(wire.FrameType.QUESTIONS, wire.encode(compare)),
            wire.encode_frame(wire.FrameType.QUESTIONS, wire.encode(rings)),
            wire.encode_frame(wire.FrameType.ANSWERS, wire.encode(answers)),
            wire.encode_frame(wire.FrameType.QUESTIONS, wire.encode(promises)),
            wire.encode_frame(wire.FrameType.ANSWERS, wire.encode(promised)),
            wire.encode_frame(wire.FrameType.QUESTIONS, wire.encode(staged)),
            wire.encode_frame(wire.FrameType.COMMIT, wire.encode(commit)),
            wire.encode_frame(wire.FrameType.DATA, b"data"),
            wire.encode_head(wire.FrameType.DATA_PLAIN, 4, 0) + b"data",
        ]
    )


def test_the_bytes_are_those_of_version_1_4() -> None:
    assert golden() == GOLDEN.read_bytes()


@pytest.mark.parametrize(
    ("error", "name"),
    [
        (Unavailable("x"), "Unavailable"),
        (DeviceOutOfService("x"), "Unavailable"),
        (NoQuorum("x"), "NoQuorum"),
        (DiskFault("x"), "DiskFault"),
        (ObjectNotFound("x", hint="h"), "ObjectNotFound"),
        (Superseded("x", Timestamp(3)), "Superseded"),
        (StaleRing("x", edition=4), "StaleRing"),
        (PromisedAbove("x", Timestamp(3, 1)), "PromisedAbove"),
        (ClockAhead("x", hint="h"), "ClockAhead"),
        (RingfortError("x"), "Unavailable"),
    ],
)
def test_errors_cross_the_wire(error: RingfortError, name: str) -> None:
    failure = wire.decode(wire.encode(wire.failure_of(error)), wire.FAILURE)
    assert failure.name == name
    back = wire.error_of(failure)
    assert (type(back).__name__, back.message, back.hint) == (name, error.message, error.hint)
    if isinstance(error, Superseded):
        assert isinstance(back, Superseded) and back.newest == error.newest
    if isinstance(error, StaleRing):
        assert isinstance(back, StaleRing) and back.edition == error.edition
    if isinstance(error, PromisedAbove):
        assert isinstance(back, PromisedAbove) and back.ballot == error.ballot


def test_an_unknown_error_is_unavailable() -> None:
    assert type(wire.error_of(wire.Failure("FromTheFuture", "x"))) is Unavailable


@pytest.mark.parametrize("secrets", [(SECRET, OTHER), (OTHER, SECRET)])
def test_both_sides_must_know_the_key(secrets: tuple[bytes, bytes]) -> None:
    server, client = wire.Handshake(secrets[0], b"S" * 32, 1), wire.Handshake(secrets[1], b"C" * 32, 1)
    proof = client.prove(server.challenge()[wire.HEAD.size :], "questions")
    with pytest.raises(wire.Refused):
        server.welcome(proof[wire.HEAD.size :])
    honest = wire.Handshake(secrets[1], b"S" * 32, 1)
    honest.challenge()
    with pytest.raises(wire.Refused):  # a server that cannot know the key echoes the client's proof
        client.finish(wire.encode(wire.Welcome(1, wire.decode(proof[wire.HEAD.size :], wire.PROOF).proof)))


def test_a_proof_is_for_one_challenge() -> None:
    server = wire.Handshake(SECRET, b"S" * 32, 1)
    proof = wire.Handshake(SECRET, b"C" * 32, 1).prove(server.challenge()[wire.HEAD.size :], "questions")
    again = wire.Handshake(SECRET, b"R" * 32, 1)
    again.challenge()
    with pytest.raises(wire.Refused):
        again.welcome(proof[wire.HEAD.size :])


def test_a_newer_major_version_is_refused() -> None:
    challenge = wire.encode(wire.Challenge(wire.MAGIC, wire.MAJOR + 1, 0, b"S" * 32))
    with pytest.raises(wire.Refused):
        wire.Handshake(SECRET, b"C" * 32, 1).prove(challenge, "questions")


@pytest.mark.parametrize("data", [b"", b"\xff", b"\x80", wire.encode({"magic": 1}), wire.encode([1, 2])])
def test_what_is_no_message_is_a_format_error(data: bytes) -> None:
    with pytest.raises(FormatError):
        wire.decode(data, wire.CHALLENGE)
    with pytest.raises(FormatError):
        wire.decode(data, wire.ASKS)


# ---- both ends


class Ends:
    def __init__(self, nursery: trio.Nursery, secret: bytes = SECRET) -> None:
        self.world = SimWorld(1)
        self.objects, self.books = FakeObjects(HASHER), FakeBooks(HASHER)
        self.nodes: dict[int, Node] = {}
        self.local = LocalNode(make_device(1), self.objects, self.books, RowPayer(nursery, self.nodes.get))
        self.nodes[1] = self.local
        self.server = NodeServer(self.world, self.nodes, SECRET, ring_version=lambda: 4)
        self.peer = Peer(self.world, nursery, ADDRESS, secret, ring_version=lambda: 3, limits=PeerLimits(answer_s=2, stall_s=2))
        self.node = RemoteNode(make_device(1), self.peer)

    async def serve(self, nursery: trio.Nursery) -> trio.CancelScope:
        scope = trio.CancelScope()

        async def run(task_status: trio.TaskStatus[None]) -> None:
            with scope:
                await self.server.serve(await self.world.net.listen(ADDRESS), task_status=task_status)

        await nursery.start(run)
        return scope


def small(ticks: int, data: bytes = b"data") -> Version:
    return Version(OBJECT, Timestamp(ticks), Kind.OBJECT, len(data), "e")


async def test_without_the_key_one_gets_nothing(nursery: trio.Nursery, autojump_clock: trio.testing.MockClock) -> None:
    ends = Ends(nursery, OTHER)
    await ends.serve(nursery)
    with pytest.raises(Unavailable):
        await ends.node.head(OBJECT)
    with pytest.raises(Unavailable):
        await ends.node.put_large(OBJECT, 5)
    assert ends.server.refused == 2
    stream = await ends.world.net.connect(ADDRESS)
    frames = Frames(stream, payload_bytes_max=10_000)
    kind, _ = await frames.expect(wire.FrameType.CHALLENGE)
    assert kind is wire.FrameType.CHALLENGE
    await frames.send(wire.encode_frame(wire.FrameType.QUESTIONS, wire.encode([wire.Ask(1, 1, wire.Head(OBJECT))])))
    assert await frames.next() is None
    await frames.aclose()


async def test_ring_versions_are_stated(nursery: trio.Nursery, autojump_clock: trio.testing.MockClock) -> None:
    ends = Ends(nursery)
    await ends.serve(nursery)
    await ends.node.head(OBJECT)
    assert (ends.peer.peer_ring_version, ends.server.peer_ring_version) == (4, 3)


async def test_a_device_that_is_not_there(nursery: trio.Nursery, autojump_clock: trio.testing.MockClock) -> None:
    ends = Ends(nursery)
    await ends.serve(nursery)
    stranger = RemoteNode(make_device(2), ends.peer)
    with pytest.raises(Unavailable):
        await stranger.head(OBJECT)
    with pytest.raises(Unavailable):
        await stranger.put_large(OBJECT, 5)
    assert await ends.node.head(OBJECT) is None
    ends.objects.broken = True
    with pytest.raises(Unavailable):
        await ends.node.head(OBJECT)


async def test_nobody_listens_and_then_somebody_does(nursery: trio.Nursery, autojump_clock: trio.testing.MockClock) -> None:
    ends = Ends(nursery)
    for _ in range(10):
        with pytest.raises(Unavailable):
            await ends.node.head(OBJECT)
    scope = await ends.serve(nursery)
    await trio.sleep(1)
    assert (await ends.node.put_small(small(1), b"data", None)).newest == Timestamp(1)
    scope.cancel()
    await trio.sleep(1)
    with pytest.raises(Unavailable):
        await ends.node.head(OBJECT)
    await ends.serve(nursery)
    await trio.sleep(1)
    assert await ends.node.head(OBJECT) == small(1)


async def test_many_questions_travel_together(nursery: trio.Nursery, autojump_clock: trio.testing.MockClock) -> None:
    ends = Ends(nursery)
    await ends.serve(nursery)
    await ends.node.head(OBJECT)

    async def ask(number: int) -> None:
        path = Path("a", "c", f"o{number}")
        await ends.node.put_small(Version(path, Timestamp(1), Kind.OBJECT, 1, "e"), b"x", None)
        assert await ends.node.head(path) is not None

    async with trio.open_nursery() as asking:
        for number in range(200):
            asking.start_soon(ask, number)
    assert len(ends.objects.held) == 200
    assert ends.server.frames_received < 100


async def test_a_question_without_an_answer_ends(nursery: trio.Nursery, autojump_clock: trio.testing.MockClock) -> None:
    ends = Ends(nursery)
    await ends.serve(nursery)
    await ends.node.head(OBJECT)

    class Hanging(FakeObjects):
        async def put_small(self, version: object, data: object, debt: object) -> object:  # type: ignore[override]
            return await trio.sleep_forever()

    ends.local.store = Hanging(HASHER)  # type: ignore[assignment]  # it never answers
    start = trio.current_time()
    with pytest.raises(Unavailable):
        await ends.node.put_small(small(1), b"data", None)
    assert trio.current_time() - start < 3
    assert await ends.node.head(OBJECT) is None  # others are served meanwhile


async def test_a_client_of_version_1_0(nursery: trio.Nursery, autojump_clock: trio.testing.MockClock) -> None:
    """It does not say the part power of its partitions: it is told that there is no answer, and is served in all else."""
    ends = Ends(nursery)
    await ends.serve(nursery)
    await ends.objects.put_small(small(1), b"data", None)
    frames = Frames(await ends.world.net.connect(ADDRESS), payload_bytes_max=10_000)
    _, challenge = await frames.expect(wire.FrameType.CHALLENGE)
    await frames.send(_proof_1_0(challenge))
    await frames.expect(wire.FrameType.WELCOME)
    asks = [
        (1, 1, {"type": "digests", "kind": "object", "partition": 3}),
        (2, 1, {"type": "leaf", "kind": "container", "partition": 3, "leaf": 0}),
        (3, 1, {"type": "head", "path": OBJECT}),
    ]
    await frames.send(wire.encode_frame(wire.FrameType.QUESTIONS, wire.encode(asks)))
    answers: dict[int, wire.Answer] = {}
    while len(answers) < len(asks):
        _, payload = await frames.expect(wire.FrameType.ANSWERS)
        answers |= {answer.id: answer for answer in wire.decode(payload, wire.ANSWERS)}
    for number in (1, 2):
        failure = answers[number].failure
        assert failure is not None and (failure.name, "part power" in failure.message) == ("Unavailable", True)
    assert wire.decode(answers[3].value, wire.VERSION) == small(1)
    await frames.aclose()


def _proof_1_0(challenge: bytes) -> bytes:
    unsigned = wire.Proof(wire.MAGIC, 1, 0, b"C" * 32, "questions", 1, b"")
    said = b"ringfort node client\0" + challenge + wire.encode(unsigned)
    signed = msgspec.structs.replace(unsigned, proof=hmac.new(SECRET, said, hashlib.sha256).digest())
    return wire.encode_frame(wire.FrameType.PROOF, wire.encode(signed))


class OldServer:
    """Speaks an older minor version; gives these answers, the last one again and again."""

    def __init__(self, minor: int, *answers: object) -> None:
        self._minor = minor
        self._answers = list(answers)
        self.asked: list[str] = []

    async def serve(self, listener: Listener) -> None:
        frames = Frames(await listener.accept(), payload_bytes_max=10_000)
        challenge = wire.encode(wire.Challenge(wire.MAGIC, 1, self._minor, b"S" * 32))
        await frames.send(wire.encode_frame(wire.FrameType.CHALLENGE, challenge))
        _, proof = await frames.expect(wire.FrameType.PROOF)
        unsigned = msgspec.structs.replace(wire.decode(proof, wire.PROOF), proof=b"")
        said = challenge + wire.encode(unsigned) + wire.decode(proof, wire.PROOF).proof
        sign = hmac.new(SECRET, b"ringfort node server\0" + said + (4).to_bytes(8, "big"), hashlib.sha256)
        await frames.send(wire.encode_frame(wire.FrameType.WELCOME, wire.encode(wire.Welcome(4, sign.digest()))))
        while True:
            _, payload = await frames.expect(wire.FrameType.QUESTIONS)
            for ask in wire.decode(payload, wire.ASKS):
                await self.answer(frames, ask)

    async def answer(self, frames: Frames, ask: wire.Ask) -> None:
        self.asked.append(type(ask.question).__name__)
        value = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        await frames.send(wire.encode_frame(wire.FrameType.ANSWERS, wire.encode([wire.Answer(ask.id, wire.raw(value))])))


class Hangs(OldServer):
    """Hangs up at a question, after some others and after a while."""

    def __init__(self, minor: int, *, after: int = 0, wait_s: float = 0.0) -> None:
        super().__init__(minor, None)
        self._after = after
        self._wait_s = wait_s

    async def answer(self, frames: Frames, ask: wire.Ask) -> None:
        if len(self.asked) < self._after:
            await super().answer(frames, ask)
        else:
            await trio.sleep(self._wait_s)
            await frames.aclose()


async def test_a_server_of_version_1_0(nursery: trio.Nursery, autojump_clock: trio.testing.MockClock) -> None:
    """It would take the number for one of its own part power: it is not asked, and nothing follows from its silence."""
    ends, server = Ends(nursery), OldServer(0, small(1))
    nursery.start_soon(server.serve, await ends.world.net.listen(ADDRESS))
    start = trio.current_time()
    for _ in range(2):
        with pytest.raises(Unavailable, match="older version") as raised:
            await ends.node.digests("object", Span(4, 3))
        assert "upgrade" in raised.value.hint
        with pytest.raises(Unavailable, match="older version"):
            await ends.node.leaf("object", Span(4, 3), 0)
        assert await ends.node.head(OBJECT) == small(1)  # on the same connection
    assert trio.current_time() - start < 1
    assert server.asked == ["Head", "Head"]


@pytest.mark.parametrize(
    ("held", "error"),
    [
        (replace(small(5), metadata_timestamp=Timestamp(9)), None),
        (small(4), ObjectNotFound),
        (small(6), Superseded),
        (small(5), Unavailable),  # it came after the POST
        (None, ObjectNotFound),
    ],
)
async def test_a_post_for_one_version_to_an_older_peer(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock, held: Version | None, error: type[Exception] | None
) -> None:
    """It gives the metadata to whatever it has: so it is looked at afterwards."""
    ends, server = Ends(nursery), OldServer(3, WriteReply(Timestamp(9), True), held)
    nursery.start_soon(server.serve, await ends.world.net.listen(ADDRESS))
    post = ends.node.post(OBJECT, {}, "", Timestamp(9), small(5).named)
    if error is None:
        await post
    else:
        with pytest.raises(error):
            await post
    assert server.asked == ["Post", "Head"]


async def test_a_lost_connection_costs_a_reader_nothing(nursery: trio.Nursery, autojump_clock: trio.testing.MockClock) -> None:
    """The worker behind it was started again, which is noticed with the next question: whoever only reads is answered over a new
    connection, whoever writes is told that it is not known."""
    ends, heard = Ends(nursery), list[str]()

    async def serve() -> None:
        while True:
            server = Hangs(0, after=2)
            with pytest.raises(Unavailable):
                await server.serve(listener)
            heard.extend(server.asked)

    listener = await ends.world.net.listen(ADDRESS)
    nursery.start_soon(serve)
    for _ in range(3):
        assert await ends.node.head(OBJECT) is None
    assert heard == ["Head", "Head"]  # and the third one on another connection, twice
    assert await ends.node.head(OBJECT) is None
    with pytest.raises(Unavailable):
        await ends.node.put_small(small(2), b"data", None)
    assert heard[2:] == ["Head", "Head"]


async def test_a_reader_does_not_ask_for_ever(nursery: trio.Nursery, autojump_clock: trio.testing.MockClock) -> None:
    ends, connections = Ends(nursery), 0

    async def serve() -> None:
        nonlocal connections
        while True:
            connections += 1
            with pytest.raises(Unavailable):
                await Hangs(0, wait_s=1 if connections == 1 else 99).serve(listener)

    listener = await ends.world.net.listen(ADDRESS)
    nursery.start_soon(serve)
    start = trio.current_time()
    with pytest.raises(Unavailable, match="did not answer in 2 s"):
        await ends.node.head(OBJECT)
    assert (connections, trio.current_time() - start) == (2, 2)


async def test_a_server_that_says_nothing(nursery: trio.Nursery, autojump_clock: trio.testing.MockClock) -> None:
    ends = Ends(nursery)
    listener = await ends.world.net.listen(ADDRESS)
    streams: list[Stream] = []

    async def accept() -> None:
        while True:
            streams.append(await listener.accept())

    nursery.start_soon(accept)
    start = trio.current_time()
    with pytest.raises(Unavailable):
        await ends.node.head(OBJECT)
    assert trio.current_time() - start <= 3


async def test_a_client_that_goes_away_in_the_middle_of_a_body(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    ends = Ends(nursery)
    await ends.serve(nursery)
    upload = await ends.node.put_large(OBJECT, 10)
    await upload.write(b"12345")
    await upload.abort()
    await trio.sleep(1)
    assert await ends.node.head(OBJECT) is None
    upload = await ends.node.put_large(OBJECT, 10)
    await upload.write(b"1234567890")
    assert (await upload.commit(small(1, b"1234567890"), None)).newest == Timestamp(1)


async def test_a_disk_that_fails_in_the_middle_of_a_body(nursery: trio.Nursery, autojump_clock: trio.testing.MockClock) -> None:
    ends = Ends(nursery)
    await ends.serve(nursery)
    data = b"d" * 2_000_000
    await ends.objects.put_small(small(1, data), data, None)
    reading = await ends.node.get(OBJECT, None, 0, None)
    assert reading is not None
    got = 0
    with pytest.raises(Unavailable):
        async for piece in reading.pieces:
            assert isinstance(piece, bytes)
            got += len(piece)
            ends.objects.damaged.add(OBJECT)
    assert 0 < got < len(data)
    ends.objects.damaged.clear()
    upload = await ends.node.put_large(OBJECT, None)
    ends.objects.broken = True
    with pytest.raises(Unavailable):
        for _ in range(100):
            await upload.write(b"d" * 100_000)
            await trio.sleep(0.01)
    await upload.abort()

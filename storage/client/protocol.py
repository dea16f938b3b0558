"""The node protocol: frames, messages and the mutual challenge between a RemoteNode and the worker that owns the device.

Pure: bytes in, bytes out.  A connection is one of two kinds, chosen in the handshake.  On a *questions* connection both sides
send frames that each carry many small messages: all questions that came up in one wakeup travel together, and so do their
answers, in any order. On a *bodies* connection one large body at a time is read or written, so that it holds up no question.

Frame: length u32 | type u8 | crc32 u32 | payload, big-endian; crc32 of the payload, 0 where it is not checked (type DATA_PLAIN,
sent by sendfile).  Messages are msgpack: maps by field name, so that a field added later is ignored by older peers and has its
default for newer ones.  Format: docs/formats/node-protocol.md.  Neighbours: server and peer (the two ends).
"""

from __future__ import annotations

import hashlib
import hmac
import struct
from collections.abc import Mapping
from enum import IntEnum
from typing import TypeVar
from zlib import crc32

import msgspec

from ring.errors import BadInput, Conflict, DiskFault, FormatError, NotFound, RingfortError, Unavailable
from ring.names import Path, Span
from ring.service.errors import StaleRing
from ring.timestamp import ZERO, Timestamp
from ring.world.interface import Buffer
from storage.client import fragment_messages
from storage.client.errors import (
    AccountNotFound,
    ClockAhead,
    ContainerNotFound,
    DeviceFull,
    Doubted,
    NoQuorum,
    ObjectNotFound,
    PromisedAbove,
    Superseded,
)
from storage.client.filling import Filled
from storage.client.interface import Row
from storage.client.node import BookHeader, BookState, Debt, LeafDigests, Named, Promised, Version, WriteReply

MAGIC = "ringfort-node"
MAJOR, MINOR = 1, 4
NONCE_BYTES = 32
HEAD = struct.Struct(">IBI")
HANDSHAKE_BYTES_MAX = 4096
MESSAGE_BYTES_MAX = 64 << 20
BATCH_BYTES = 1 << 20  # about where a frame of questions or answers is cut
DATA_BYTES = 1 << 20
POST_NAMES_MINOR = 4  # from which on peers know of Post.of
INLINE_BYTES_MAX = 64 << 10  # bodies up to this come with the answer

S = TypeVar("S")


class FrameType(IntEnum):
    CHALLENGE = 1  # server
    PROOF = 2  # client
    WELCOME = 3  # server
    QUESTIONS = 4  # client
    ANSWERS = 5  # server
    GET = 6  # client
    FOUND = 7  # server; None when it is not there
    PUT = 8  # client
    READY = 9  # server
    DATA = 10
    DATA_PLAIN = 11  # from the page cache: no checksum
    END = 12  # server: the body is complete
    COMMIT = 13  # client
    DONE = 14  # server
    FAILED = 15  # server


def encode_head(kind: FrameType, length: int, checksum: int) -> bytes:
    return HEAD.pack(length, kind, checksum)


def decode_head(head: Buffer) -> tuple[FrameType, int, int]:
    """(type, length, checksum).  FormatError."""
    length, kind, checksum = HEAD.unpack(head)
    try:
        return FrameType(kind), length, checksum
    except ValueError:
        raise FormatError(f"a frame of unknown type {kind}") from None


def encode_frame(kind: FrameType, payload: bytes) -> bytes:
    return HEAD.pack(len(payload), kind, crc32(payload)) + payload


def check_payload(payload: Buffer, checksum: int) -> None:
    if crc32(payload) != checksum:
        raise FormatError("a frame was damaged on its way")


# ---- handshake


class Challenge(msgspec.Struct, frozen=True):
    magic: str
    major: int
    minor: int
    nonce: bytes


class Proof(msgspec.Struct, frozen=True):
    magic: str
    major: int
    minor: int
    nonce: bytes
    purpose: str  # "questions" or "bodies"
    ring_version: int
    proof: bytes


class Welcome(msgspec.Struct, frozen=True):
    ring_version: int
    proof: bytes


class Refused(Unavailable):
    """The peer does not know the cluster key, or speaks a newer major version."""


class Handshake:
    """Either end of the mutual challenge.  Each side proves that it knows the cluster key by an HMAC-SHA256 over everything that
    both have said before, under a label of its own: neither proof can be had from the other side and sent back."""

    def __init__(self, secret: bytes, nonce: bytes, ring_version: int) -> None:
        assert len(nonce) == NONCE_BYTES
        self._secret = secret
        self._nonce = nonce
        self._ring_version = ring_version
        self._said = b""
        self.purpose = ""
        self.peer_minor = 0
        self.peer_ring_version = 0

    # the server

    def challenge(self) -> bytes:
        payload = encode(Challenge(MAGIC, MAJOR, MINOR, self._nonce))
        self._said = payload
        return encode_frame(FrameType.CHALLENGE, payload)

    def welcome(self, proof_payload: bytes) -> bytes:
        """Raises Refused: then say nothing and close."""
        proof = decode(proof_payload, PROOF)
        self._check_version(proof.magic, proof.major)
        said = self._said + encode(msgspec.structs.replace(proof, proof=b""))
        if len(proof.nonce) != NONCE_BYTES or not hmac.compare_digest(proof.proof, self._sign(b"client", said)):
            raise Refused("the peer does not know the cluster key")
        self.purpose, self.peer_minor, self.peer_ring_version = proof.purpose, proof.minor, proof.ring_version
        body = self._ring_version.to_bytes(8, "big")
        return encode_frame(
            FrameType.WELCOME, encode(Welcome(self._ring_version, self._sign(b"server", said + proof.proof + body)))
        )

    # the client

    def prove(self, challenge_payload: bytes, purpose: str) -> bytes:
        challenge = decode(challenge_payload, CHALLENGE)
        self._check_version(challenge.magic, challenge.major)
        if len(challenge.nonce) != NONCE_BYTES:
            raise Refused("the peer's challenge is too short")
        self.peer_minor = challenge.minor
        proof = Proof(MAGIC, MAJOR, MINOR, self._nonce, purpose, self._ring_version, b"")
        said = challenge_payload + encode(proof)
        signature = self._sign(b"client", said)
        self._said = said + signature
        return encode_frame(FrameType.PROOF, encode(msgspec.structs.replace(proof, proof=signature)))

    def finish(self, welcome_payload: bytes) -> None:
        welcome = decode(welcome_payload, WELCOME)
        body = welcome.ring_version.to_bytes(8, "big")
        if not hmac.compare_digest(welcome.proof, self._sign(b"server", self._said + body)):
            raise Refused("the peer does not know the cluster key")
        self.peer_ring_version = welcome.ring_version

    def _sign(self, role: bytes, said: bytes) -> bytes:
        return hmac.new(self._secret, b"ringfort node " + role + b"\0" + said, hashlib.sha256).digest()

    def _check_version(self, magic: str, major: int) -> None:
        if magic != MAGIC:
            raise Refused("the peer does not speak the node protocol")
        if major > MAJOR:
            raise Refused(f"the peer speaks version {major} of the node protocol, newer than {MAJOR}", hint="upgrade this node")


# ---- questions


class PutSmall(msgspec.Struct, tag="put_small", frozen=True):
    version: Version
    data: bytes
    debt: Debt | None = None


class Post(msgspec.Struct, tag="post", frozen=True):
    path: Path
    metadata: dict[str, str]
    content_type: str
    timestamp: Timestamp
    of: Named | None = None  # since 1.4: the version that is meant; an older peer takes the newest that it has


class Promise(msgspec.Struct, tag="promise", frozen=True):
    """Since 1.3, as is ``Release``."""

    path: Path
    ballot: Timestamp
    ours: list[Timestamp]


class Release(msgspec.Struct, tag="release", frozen=True):
    path: Path
    ballot: Timestamp


class Head(msgspec.Struct, tag="head", frozen=True):
    path: Path


class Get(msgspec.Struct, tag="get", frozen=True):
    path: Path
    timestamp: Timestamp | None
    offset: int
    length: int | None


class ByKey(msgspec.Struct, tag="by_key", frozen=True):
    key: bytes


class MergeHeader(msgspec.Struct, tag="merge_header", frozen=True):
    header: BookHeader


class MergeRows(msgspec.Struct, tag="merge_rows", frozen=True):
    book: Path
    rows: list[Row]


class Book(msgspec.Struct, tag="book", frozen=True):
    path: Path


class Rows(msgspec.Struct, tag="rows", frozen=True):
    path: Path
    start: str
    end: str
    limit: int
    reverse: bool


class Digests(msgspec.Struct, tag="digests", frozen=True):
    kind: str
    partition: int
    part_power: int | None = None  # since 1.1; see span_of


class Leaf(msgspec.Struct, tag="leaf", frozen=True):
    kind: str
    partition: int
    leaf: int
    part_power: int | None = None


class EditionFile(msgspec.Struct, tag="edition", frozen=True):
    """Since 1.2, as is ``RingPart``: asked of the process, whatever device is named."""


class RingPart(msgspec.Struct, tag="ring_part", frozen=True):
    name: str
    version: int
    offset: int


class Fill(msgspec.Struct, tag="fill", frozen=True):
    """Since 1.3: bring the device ``target`` what is held of these partitions of ``ring``."""

    ring: str
    part_power: int
    partitions: list[int]
    target: int


Question = (
    PutSmall
    | Post
    | Promise
    | Release
    | Head
    | Get
    | ByKey
    | MergeHeader
    | MergeRows
    | Book
    | Rows
    | Digests
    | Leaf
    | EditionFile
    | RingPart
    | Fill
    | fragment_messages.Message
)
_SINCE_MINOR: Mapping[type, int] = {Digests: 1, Leaf: 1, EditionFile: 2, RingPart: 2, Fill: 3, Promise: 3, Release: 3}


def minor_of(question: Question) -> int:
    """The least minor version that a peer must speak to be asked this: an older one would answer something else."""
    if isinstance(question, fragment_messages.MESSAGES):
        return fragment_messages.minor_of(question)
    return _SINCE_MINOR.get(type(question), 0)


_READS = (
    Head,
    Get,
    ByKey,
    Book,
    Rows,
    Digests,
    Leaf,
    EditionFile,
    RingPart,
    fragment_messages.Sightings,
    fragment_messages.Describe,
)


def only_reads(question: Question) -> bool:
    """To ask it twice is the same as once."""
    return isinstance(question, _READS)


def minor_of_policy(policy: int) -> int:
    """Likewise of a policy: an older peer would answer for policy 0."""
    return 3 if policy else 0


def span_of(question: Digests | Leaf) -> Span:
    """What is asked about.  BadInput when there is no such partition.

    A peer of version 1.0 numbers partitions with a part power of its own that it does not say, and that is not known here once a
    ring has grown: Unavailable, which it takes for no answer, so that it neither sends nor drops anything for it."""
    if question.part_power is None:
        raise Unavailable("the question does not say its part power", hint="upgrade the node that asks: it speaks version 1.0")
    return Span(question.part_power, question.partition)


class Ask(msgspec.Struct, array_like=True, frozen=True):
    id: int
    device: int
    question: Question
    edition: int = 0  # since 1.2: of the rings by which it is asked; 0: none
    policy: int = 0  # since 1.3: whose objects are meant; see minor_of_policy


class Failure(msgspec.Struct, frozen=True):
    name: str
    message: str
    hint: str = ""
    newest: Timestamp | None = None  # of a PromisedAbove, since 1.3: its ballot
    edition: int = 0  # of a StaleRing


class Answer(msgspec.Struct, array_like=True, frozen=True):
    id: int
    value: msgspec.Raw
    failure: Failure | None = None


class Found(msgspec.Struct, frozen=True):
    """``data`` None: too much for an answer, ask for it on a bodies connection."""

    version: Version
    data: bytes | None


class PageOfRows(msgspec.Struct, frozen=True):
    state: BookState
    packed: bytes  # storage.rows.page
    complete: bool


# ---- bodies


class GetBody(msgspec.Struct, frozen=True):
    device: int
    path: Path
    timestamp: Timestamp | None
    offset: int
    length: int | None
    policy: int = 0  # since 1.3
    version: Version | None = None  # since 1.3: bytes of a fragment (or copy) of that very version are wanted


class PutBody(msgspec.Struct, frozen=True):
    device: int
    path: Path
    size: int | None
    policy: int = 0  # since 1.3
    piece_bytes: int = 0  # since 1.3: of a fragment; 0: it is a whole object


class Commit(msgspec.Struct, frozen=True):
    version: Version
    debt: Debt | None
    edition: int = 0
    fragment: bytes = b""  # since 1.3: its description, when one is to be staged; what was ``seen`` ignores refusals
    seen: bool = False
    promised: bool = False  # since 1.4, of a fragment: see storage.client.fragments


# ---- codec

Shape = msgspec.msgpack.Decoder  # of what is expected
encode = msgspec.msgpack.Encoder().encode

CHALLENGE = Shape(Challenge)
PROOF = Shape(Proof)
WELCOME = Shape(Welcome)
ASKS = Shape(list[Ask])
ANSWERS = Shape(list[Answer])
FAILURE = Shape(Failure)
WRITE_REPLY = Shape(WriteReply)
FILLED = Shape(Filled)
PROMISED = Shape(Promised)
NOTHING: Shape[None] = Shape(type(None))
VERSION: Shape[Version | None] = Shape(Version | None)
FOUND: Shape[Found | None] = Shape(Found | None)
BOOK_STATE = Shape(BookState)
BOOK_STATE_IF_ANY: Shape[BookState | None] = Shape(BookState | None)
PAGE: Shape[PageOfRows | None] = Shape(PageOfRows | None)
LEAF_DIGESTS = Shape(LeafDigests)
BYTES = Shape(bytes)
LEAF_KEYS = Shape(list[tuple[bytes, bytes]])
GET_BODY = Shape(GetBody)
PUT_BODY = Shape(PutBody)
COMMIT = Shape(Commit)


def raw(value: object) -> msgspec.Raw:
    """A value of an answer."""
    return msgspec.Raw(encode(value))


def decode(payload: Buffer, shape: Shape[S]) -> S:
    """FormatError when the payload is something else."""
    try:
        return shape.decode(payload)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise FormatError(f"not the message that belongs here: {error}") from error


# ---- errors

_ERRORS: Mapping[str, type[RingfortError]] = {
    error.__name__: error
    for error in (
        Unavailable,
        NoQuorum,
        DeviceFull,  # since 1.4: to an older peer it is Unavailable
        PromisedAbove,
        Doubted,
        ClockAhead,
        StaleRing,
        DiskFault,
        NotFound,
        ObjectNotFound,
        ContainerNotFound,
        AccountNotFound,
        Conflict,
        Superseded,
        BadInput,
        FormatError,
    )
}


def failure_of(error: RingfortError) -> Failure:
    """The nearest kind that the other side knows."""
    name = next((kind.__name__ for kind in type(error).__mro__ if kind.__name__ in _ERRORS), "Unavailable")
    newest = error.newest if isinstance(error, Superseded) else error.ballot if isinstance(error, PromisedAbove) else None
    return Failure(name, error.message, error.hint, newest, error.edition if isinstance(error, StaleRing) else 0)


def error_of(failure: Failure) -> RingfortError:
    if failure.name == "Superseded" and failure.newest is not None:
        return Superseded(failure.message, failure.newest)
    if failure.name == "PromisedAbove":
        return PromisedAbove(failure.message, failure.newest or ZERO)
    if failure.name == "StaleRing":
        return StaleRing(failure.message, edition=failure.edition, hint=failure.hint)
    return _ERRORS.get(failure.name, Unavailable)(failure.message, hint=failure.hint)

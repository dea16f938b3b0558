"""What goes over a store's socket: frames of msgpack, byte for byte in docs/formats/kv-wire.md.

Pure codec and framing; ``server.py`` answers, ``remote.py`` asks.  Both sides first send a greeting with the protocol's version.
Requests carry an id, replies repeat it, in any order; a watch's pushes carry the id of the request that began it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from ring.errors import BadInput, Conflict, FormatError, NotFound, RingfortError, Unavailable
from ring.kv.interface import Delete, Entry, Event, LeaseId, Operation, Put, Unchanged

PROTOCOL = 1
FRAME_BYTES_MAX = 128 << 20  # a transaction of the largest values fits
_LENGTH = 4


class _Message(msgspec.Struct, array_like=True):
    pass


class EntryRecord(_Message):
    key: str
    value: bytes
    created: int
    modified: int
    lease: int | None


class EventRecord(_Message):
    key: str
    entry: EntryRecord | None
    revision: int


class OperationRecord(_Message):
    key: str
    value: bytes | None  # None deletes
    lease: int | None = None


class Greeting(_Message, tag="ringfort-kv"):
    protocol: int


class Get(_Message, tag="get"):
    id: int
    key: str


class Range(_Message, tag="range"):
    id: int
    prefix: str
    limit: int | None


class Transact(_Message, tag="transact"):
    id: int
    compares: list[tuple[str, int]]
    operations: list[OperationRecord]


class Grant(_Message, tag="grant"):
    id: int
    ttl_s: float


class KeepAlive(_Message, tag="keep_alive"):
    id: int
    lease: int


class Revoke(_Message, tag="revoke"):
    id: int
    lease: int


class StartWatch(_Message, tag="watch"):
    id: int
    prefix: str


class StopWatch(_Message, tag="unwatch"):
    id: int


class Failed(_Message, tag="failed"):
    """Any request's; for a watch it may come at any time, and ends it."""

    id: int
    kind: str
    message: str
    hint: str


class Entries(_Message, tag="entries"):
    """get (none or one), range, watch (its start)."""

    id: int
    entries: list[EntryRecord]
    revision: int  # of a watch's start, else 0


class Done(_Message, tag="done"):
    """transact, grant, keep_alive, revoke."""

    id: int
    succeeded: bool
    number: int  # the revision, or the lease


class Events(_Message, tag="events"):
    id: int
    events: list[EventRecord]


Request = Greeting | Get | Range | Transact | Grant | KeepAlive | Revoke | StartWatch | StopWatch
Reply = Greeting | Failed | Entries | Done | Events

_encoder = msgspec.msgpack.Encoder()
requests: msgspec.msgpack.Decoder[Request] = msgspec.msgpack.Decoder(Request)
replies: msgspec.msgpack.Decoder[Reply] = msgspec.msgpack.Decoder(Reply)


def encode(message: Request | Reply) -> bytes:
    payload = _encoder.encode(message)
    return len(payload).to_bytes(_LENGTH, "big") + payload


class Frames:
    """Bytes in, whole messages out."""

    def __init__(self, decoder: msgspec.msgpack.Decoder[Any]) -> None:
        self._decoder = decoder
        self._buffer = bytearray()

    def receive(self, data: bytes | bytearray) -> list[Any]:
        """FormatError for what is no message of this protocol: close the connection."""
        self._buffer += data
        messages = []
        start = 0
        while len(self._buffer) - start >= _LENGTH:
            length = int.from_bytes(self._buffer[start : start + _LENGTH], "big")
            if length > FRAME_BYTES_MAX:
                raise FormatError("a frame of control state is too long")
            if len(self._buffer) - start < _LENGTH + length:
                break
            try:
                with memoryview(self._buffer) as view, view[start + _LENGTH : start + _LENGTH + length] as frame:
                    messages.append(self._decoder.decode(frame))
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                raise FormatError(f"not a message of control state: {error}") from error
            start += _LENGTH + length
        del self._buffer[:start]
        return messages


# ---- between records and the interface's types


def to_entry(record: EntryRecord) -> Entry:
    return Entry(record.key, record.value, record.created, record.modified, _lease(record.lease))


def from_entry(entry: Entry) -> EntryRecord:
    return EntryRecord(entry.key, entry.value, entry.created, entry.modified, entry.lease)


def to_event(record: EventRecord) -> Event:
    return Event(record.key, None if record.entry is None else to_entry(record.entry), record.revision)


def from_event(event: Event) -> EventRecord:
    return EventRecord(event.key, None if event.entry is None else from_entry(event.entry), event.revision)


def to_operation(record: OperationRecord) -> Operation:
    return Delete(record.key) if record.value is None else Put(record.key, record.value, _lease(record.lease))


def from_operation(operation: Operation) -> OperationRecord:
    if isinstance(operation, Delete):
        return OperationRecord(operation.key, None)
    return OperationRecord(operation.key, operation.value, operation.lease)


def from_compares(compares: Sequence[Unchanged]) -> list[tuple[str, int]]:
    return [(compare.key, compare.modified) for compare in compares]


def _lease(number: int | None) -> LeaseId | None:
    return None if number is None else LeaseId(number)


_KINDS: dict[str, type[RingfortError]] = {
    "bad_input": BadInput,
    "not_found": NotFound,
    "conflict": Conflict,
    "unavailable": Unavailable,
}


def from_error(request_id: int, error: RingfortError) -> Failed:
    kind = next((kind for kind, known in _KINDS.items() if isinstance(error, known)), "unavailable")
    return Failed(request_id, kind, error.message, error.hint)


def to_error(failed: Failed) -> RingfortError:
    return _KINDS.get(failed.kind, Unavailable)(failed.message, hint=failed.hint)

"""The log of the one-machine store, byte for byte (docs/formats/kv-log.md), and which of several logs to believe.

Pure codec and pure decision; ``local.py`` reads, writes and syncs.  A log is a head (who wrote it, and a snapshot of the state)
and the records since.  Every record was synced before the next was written to the same log: so a bad record with nothing good
behind it is the torn end of an append that nobody was told of, and one with a good record behind it is rot.

Which log wins (``choose``): every start of the store is a generation, and takes writes only after a majority of the logs carry
its head.  A generation in which something was written is *established*; two starts that could not see each other may share a
number, but only one of them can be established.  Greatest (generation, established, sequence) wins, as in Raft's election rule:
what was acknowledged is in it as long as enough logs can be read that one of them must hold it.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum

import msgspec

from ring.errors import DiskFault, NewerFormat, Unavailable
from ring.kv.interface import Delete, Entry, LeaseId, Operation, Put
from ring.kv.state import Change, Granted, Revoked, State, Transacted

MAGIC = b"RFKVLOG\n"
RECORD_MAGIC = b"kvR\n"
FORMAT_VERSION = 1
_HEAD_FIXED = 24  # magic 8, format version 2, zero 2, payload length 8, crc32 4
_RECORD_FIXED = 28  # magic 4, payload length 4, sequence 8, revision 8, crc32 4


@dataclass(frozen=True, slots=True)
class Head:
    store: bytes  # 16 random bytes, the same in all logs of a store
    generation: int
    logs: int  # how many logs the store had
    opened: int  # the sequence at which the generation began
    sequence: int  # the last record that the snapshot holds


class Condition(Enum):
    WHOLE = "whole"
    TORN = "torn"  # the last append did not finish
    ROTTEN = "rotten"  # something that was synced is damaged
    FOREIGN = "foreign"  # another store's
    EMPTY = "empty"  # no file
    ABSENT = "absent"  # the disk does not answer


@dataclass(frozen=True, slots=True)
class Found:
    """What one disk has.  ``log`` only when WHOLE or TORN (or FOREIGN)."""

    condition: Condition
    log: Log | None = None
    reason: str = ""

    @property
    def valid(self) -> bool:
        return self.condition in (Condition.WHOLE, Condition.TORN)


@dataclass(frozen=True, slots=True)
class Log:
    head: Head
    state: State  # with all records applied
    sequence: int  # of the last record

    @property
    def rank(self) -> tuple[int, bool, int]:
        return (self.head.generation, self.sequence > self.head.opened, self.sequence)


# ---- payloads


class _Put(msgspec.Struct, array_like=True, tag="p", forbid_unknown_fields=True):
    key: str
    value: bytes
    lease: int | None


class _Delete(msgspec.Struct, array_like=True, tag="d", forbid_unknown_fields=True):
    key: str


class _Transacted(msgspec.Struct, array_like=True, tag="t", forbid_unknown_fields=True):
    revision: int
    operations: list[_Put | _Delete]


class _Granted(msgspec.Struct, array_like=True, tag="g", forbid_unknown_fields=True):
    lease: int
    ttl_s: float


class _Revoked(msgspec.Struct, array_like=True, tag="r", forbid_unknown_fields=True):
    lease: int
    revision: int


class _Entry(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    key: str
    value: bytes
    created: int
    modified: int
    lease: int | None


class _Snapshot(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    store: bytes
    generation: int
    logs: int
    opened: int
    sequence: int
    revision: int
    next_lease: int
    entries: list[_Entry]
    leases: list[tuple[int, float]]


_encoder = msgspec.msgpack.Encoder()
_changes = msgspec.msgpack.Decoder(list[_Transacted | _Granted | _Revoked])
_snapshot = msgspec.msgpack.Decoder(_Snapshot)


# ---- encoding


def encode_head(head: Head, state: State) -> bytes:
    """A log without records: what a log is replaced by when it is repaired or shortened."""
    payload = _encoder.encode(
        _Snapshot(
            head.store,
            head.generation,
            head.logs,
            head.opened,
            head.sequence,
            state.revision,
            state.next_lease,
            [_Entry(e.key, e.value, e.created, e.modified, e.lease) for e in state.range("")],
            [(lease, each.ttl_s) for lease, each in sorted(state.leases.items())],
        )
    )
    start = MAGIC + FORMAT_VERSION.to_bytes(2, "big") + bytes(2) + len(payload).to_bytes(8, "big")
    return start + zlib.crc32(payload, zlib.crc32(start)).to_bytes(4, "big") + payload


def encode_record(sequence: int, revision: int, changes: Sequence[Change]) -> bytes:
    payload = _encoder.encode([_encode_change(change) for change in changes])
    start = RECORD_MAGIC + len(payload).to_bytes(4, "big") + sequence.to_bytes(8, "big") + revision.to_bytes(8, "big")
    return start + zlib.crc32(payload, zlib.crc32(start)).to_bytes(4, "big") + payload


def _encode_change(change: Change) -> _Transacted | _Granted | _Revoked:
    match change:
        case Transacted(revision, operations):
            return _Transacted(revision, [_encode_operation(o) for o in operations])
        case Granted(lease, ttl_s):
            return _Granted(lease, ttl_s)
        case Revoked(lease, revision):
            return _Revoked(lease, revision)


def _encode_operation(operation: Operation) -> _Put | _Delete:
    if isinstance(operation, Delete):
        return _Delete(operation.key)
    return _Put(operation.key, operation.value, operation.lease)


# ---- decoding


def decode(data: bytes) -> Found:
    """WHOLE, TORN or ROTTEN.  NewerFormat when a newer version wrote it: that is for people to solve, not to be repaired."""
    if len(data) < _HEAD_FIXED or data[:8] != MAGIC:
        return Found(Condition.ROTTEN, reason="it does not begin as a log does")
    end = _HEAD_FIXED + int.from_bytes(data[12:20], "big")
    intact = zlib.crc32(data[_HEAD_FIXED:end], zlib.crc32(data[:20])) == int.from_bytes(data[20:24], "big")
    version = int.from_bytes(data[8:10], "big")
    if intact and version > FORMAT_VERSION:
        raise NewerFormat("a control-state log", version, FORMAT_VERSION)
    if not intact or end > len(data):
        return Found(Condition.ROTTEN, reason="its head fails its checksum")
    try:
        return _replay(data, end)
    except (msgspec.DecodeError, UnicodeDecodeError, KeyError, AssertionError) as error:
        return Found(Condition.ROTTEN, reason=f"its content makes no sense: {error!r}")


def _replay(data: bytes, offset: int) -> Found:
    snapshot = _snapshot.decode(data[_HEAD_FIXED:offset])
    head = Head(snapshot.store, snapshot.generation, snapshot.logs, snapshot.opened, snapshot.sequence)
    state = State(
        snapshot.revision,
        snapshot.next_lease,
        [Entry(e.key, e.value, e.created, e.modified, None if e.lease is None else LeaseId(e.lease)) for e in snapshot.entries],
        [(LeaseId(lease), ttl_s) for lease, ttl_s in snapshot.leases],
    )
    sequence = head.sequence
    while offset < len(data):
        record = _record_at(data, offset)
        if record is None or record[0] != sequence + 1:
            if record is not None or _another_record(data, offset + 1, sequence):
                return Found(Condition.ROTTEN, reason=f"the record at byte {offset} is damaged, and more follow")
            return Found(Condition.TORN, Log(head, state, sequence), reason=f"it is torn at byte {offset}")
        sequence, end = record
        for change in _changes.decode(data[offset + _RECORD_FIXED : end]):
            state.apply(_decode_change(change))
        offset = end
    return Found(Condition.WHOLE, Log(head, state, sequence))


def _record_at(data: bytes, offset: int) -> tuple[int, int] | None:
    """(sequence, end) of the whole record that begins here."""
    start = data[offset : offset + _RECORD_FIXED]
    if len(start) < _RECORD_FIXED or start[:4] != RECORD_MAGIC:
        return None
    end = offset + _RECORD_FIXED + int.from_bytes(start[4:8], "big")
    if end > len(data):
        return None
    if zlib.crc32(memoryview(data)[offset + _RECORD_FIXED : end], zlib.crc32(start[:24])) != int.from_bytes(start[24:28], "big"):
        return None
    return int.from_bytes(start[8:16], "big"), end


def _another_record(data: bytes, offset: int, after: int) -> bool:
    """Whether a whole record of a later sequence stands anywhere from ``offset`` on."""
    while (offset := data.find(RECORD_MAGIC, offset)) >= 0:
        record = _record_at(data, offset)
        if record is not None and record[0] > after:
            return True
        offset += 1
    return False


def _decode_change(change: _Transacted | _Granted | _Revoked) -> Change:
    match change:
        case _Transacted():
            return Transacted(change.revision, tuple(_decode_operation(o) for o in change.operations))
        case _Granted():
            return Granted(LeaseId(change.lease), change.ttl_s)
        case _Revoked():
            return Revoked(LeaseId(change.lease), change.revision)


def _decode_operation(operation: _Put | _Delete) -> Operation:
    if isinstance(operation, _Delete):
        return Delete(operation.key)
    return Put(operation.key, operation.value, None if operation.lease is None else LeaseId(operation.lease))


# ---- choosing


def quorum(logs: int) -> int:
    """How many logs must have synced a record before it is acknowledged: 1 of 1, 2 of 2, 2 of 3."""
    return logs // 2 + 1


def choose(found: Sequence[Found]) -> tuple[Log | None, list[Found]]:
    """The log to go on from (None: a store that never was), and ``found`` with other stores' logs marked FOREIGN.

    Unavailable when too few logs can be read to know what was acknowledged, DiskFault when all that there is is damaged."""
    stores = {each.log.head.store for each in found if each.log is not None}
    if len(stores) > 1:
        votes = {store: sum(1 for each in found if each.log is not None and each.log.head.store == store) for store in stores}
        ours = max(stores, key=lambda store: votes[store])
        if list(votes.values()).count(votes[ours]) > 1:
            raise Unavailable("the control-state logs belong to different clouds", hint="were disks swapped?")
        found = [
            replace(each, condition=Condition.FOREIGN) if each.log is not None and each.log.head.store != ours else each
            for each in found
        ]
    marked = list(found)
    conditions = [each.condition for each in marked]
    valid = [each.log for each in marked if each.valid and each.log is not None]
    if not valid:
        if all(condition is Condition.EMPTY for condition in conditions):
            return None, marked
        if Condition.ROTTEN in conditions and Condition.ABSENT not in conditions:
            raise DiskFault(f"no control-state log is intact: {_reasons(marked)}", hint="restore one from a backup")
        raise Unavailable(f"no control-state log can be read: {_reasons(marked)}")
    best = max(valid, key=lambda log: log.rank)
    needed = best.head.logs - quorum(best.head.logs) + 1
    never_written = best.sequence == 0 and len(valid) + conditions.count(Condition.EMPTY) == len(marked)
    if len(valid) < needed and not never_written:
        raise Unavailable(
            f"{len(valid)} of {best.head.logs} control-state logs can be read, {needed} are needed: {_reasons(marked)}",
            hint="bring the missing disks back",
        )
    return best, marked


def _reasons(found: Sequence[Found]) -> str:
    return "; ".join(f"log {index}: {each.condition.value} {each.reason}".rstrip() for index, each in enumerate(found))

"""Records: what is encoded is decoded, what is harmed is refused, and a scan loses only what was harmed."""

import random
import zlib
from pathlib import Path as FilePath

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ring.errors import FormatError
from ring.names import Path
from ring.timestamp import Timestamp
from storage.client.interface import Row
from storage.client.node import Debt, Kind, Version
from storage.erasure import fragment as fragments
from storage.erasure.interface import Coding
from storage.object.errors import BadRecord
from storage.object.record import (
    FileInfo,
    Info,
    Origin,
    Record,
    RecordKind,
    debt_of,
    decode_info,
    decode_record,
    encode_record,
    info_of,
    version_of,
)
from storage.object.scan import Damaged, Finding, Found, Scanner
from storage.object.segment import SegmentHead

GOLDEN = FilePath(__file__).parents[2] / "golden"
SALT = 0x5EED5A17
COMPACTED_HEAD = SegmentHead(0x80000007, 2, SALT, 9, (3, 4))
ZSTD_OF_HELLO = bytes.fromhex("28b52ffd200529000068656c6c6f")
PATH = Path("AUTH_test", "photos", "öl/1.jpg")


def _encoded(record: Record, salt: int = SALT) -> bytes:
    buffers, length, _ = encode_record(record, salt)
    data = b"".join(buffers)
    assert len(data) == length
    return data


def _golden_records() -> list[Record]:
    version = Version(
        PATH, Timestamp(170000000012345), Kind.OBJECT, 5, "5d41402abc4b2a76b9719d911017c592", "text/plain", {"x-object-meta-a": "1"}
    )
    row = Row(PATH.object, version.timestamp, 5, version.etag, "text/plain")
    debt = Debt(row, PATH.parent, (3, 1))
    digest = bytes(range(16))
    posted = Timestamp(170000000099999, 2)
    return [
        Record(RecordKind.OBJECT_INLINE, digest, version.timestamp, info_of(version, debt), b"hello"),
        Record(RecordKind.METADATA, digest, version.timestamp, Info(info_of(version, None).path, posted_at=posted.pack())),
        Record(
            RecordKind.OBJECT_FILE,
            digest[::-1],
            version.timestamp,
            info_of(Version(PATH, version.timestamp, Kind.OBJECT, 1 << 20), None, FileInfo(1, 1 << 20, b"\1\2\3\4")),
        ),
        Record(RecordKind.TOMBSTONE, digest, posted, info_of(Version(PATH, posted, Kind.TOMBSTONE), None)),
        Record(RecordKind.DROP, digest, posted, Info(info_of(version, None).path, reason="handed off")),
    ]


def _flagged_records() -> list[Record]:
    """A compressed one, and one that compaction moved."""
    first = _golden_records()[0]
    return [
        msgspec.structs.replace(first, data=ZSTD_OF_HELLO, zstd=True),
        msgspec.structs.replace(first, origin=Origin(3, 4096)),
        msgspec.structs.replace(first, zstd=True, data=ZSTD_OF_HELLO, origin=Origin(1, 64)),
    ]


def _promised_records() -> list[Record]:
    """A promise, its release, and a copy of a version under a newer timestamp."""
    path = (PATH.account, PATH.container, PATH.object)
    digest, ballot, old = bytes(range(16)), Timestamp(170000000200000, 1), Timestamp(170000000012345)
    return [
        Record(RecordKind.PROMISE, digest, ballot, Info(path)),
        Record(RecordKind.RELEASE, digest, ballot, Info(("", "", ""))),
        Record(RecordKind.TOMBSTONE, digest, ballot, info_of(Version(PATH, ballot, Kind.TOMBSTONE, origin=old), None)),
    ]


def _staged_records() -> list[Record]:
    """Of erasure-coded policies: staged, committed, refused, let go of."""
    digest, at = bytes(range(16)), Timestamp(170000000300000)
    origin = fragments.Origin(digest, at, "5d41402abc4b2a76b9719d911017c592", 5, Coding(2, 1))
    described = fragments.encode_fragment(fragments.Fragment(origin, 1, b"\1\2\3\4"))
    version = Version(PATH, at, Kind.OBJECT, 5, origin.etag, "text/plain")
    info, file = info_of(version, None), FileInfo(0, 1 << 19, b"\1\2\3\4")
    return [
        Record(RecordKind.STAGED_COPY, digest, at, info, b"hello"),
        Record(RecordKind.STAGED_FILE, digest, at, info_of(version, None, file), described),
        Record(RecordKind.STAGED_NOTE, digest, at, info),
        Record(RecordKind.FRAGMENT, digest, at, info_of(version, None, file), described),
        Record(RecordKind.NOTE, digest, at, info),
        Record(RecordKind.REFUSED, digest, at, info),
        Record(RecordKind.UNSTAGED, digest, at, Info(("", "", ""), etag=origin.etag)),
    ]


def _all_records() -> list[Record]:
    return _golden_records() + _flagged_records() + _promised_records() + _staged_records()


def test_golden_bytes() -> None:
    data = COMPACTED_HEAD.encode() + b"".join(_encoded(record) for record in _all_records())
    assert data == (GOLDEN / "pack.bin").read_bytes()
    head = SegmentHead.decode(data)
    assert head == COMPACTED_HEAD
    found = Scanner(head.salt, head.length).feed(data[head.length :], last=True)
    assert [_plain(finding) for finding in found] == [_plain(record) for record in _all_records()]


def test_golden_bytes_of_the_first_format() -> None:
    """Devices hold segments of it; they are read, and nobody appends to them."""
    data = (GOLDEN / "pack-1.bin").read_bytes()
    head = SegmentHead.decode(data)
    assert head == SegmentHead(7, 2, SALT, version=1)
    assert head.length == 32
    found = Scanner(head.salt, head.length).feed(data[head.length :], last=True)
    assert [_plain(finding) for finding in found] == [_plain(record) for record in _golden_records()]


def test_a_newer_segment_is_refused_with_a_clear_line() -> None:
    data = bytearray(COMPACTED_HEAD.encode())
    data[9] = 3
    data[60:] = zlib.crc32(data[:60]).to_bytes(4, "big")
    with pytest.raises(FormatError, match="format 3; this program knows up to 2"):
        SegmentHead.decode(data)


@pytest.mark.parametrize("at", range(64))
def test_a_harmed_head_of_a_segment_is_refused(at: int) -> None:
    data = bytearray(COMPACTED_HEAD.encode())
    data[at] ^= 0x10
    with pytest.raises(FormatError):
        SegmentHead.decode(data)


def _plain(item: Finding | Record) -> tuple[object, ...]:
    record = item if isinstance(item, Record) else item.record if isinstance(item, Found) else None
    assert record is not None, item
    return record.kind, record.hash, record.timestamp, record.info, bytes(record.data), record.zstd, record.origin


def test_version_and_debt_come_back() -> None:
    version = Version(PATH, Timestamp(5), Kind.OBJECT, 3, "e", "a/b", {"x-object-meta-ä": "ö"}, Timestamp(9, 1))
    debt = Debt(Row("öl/1.jpg", Timestamp(5), 3, "e", "a/b", 0, True), PATH.parent, (1, 2))
    info = decode_record(
        _encoded(Record(RecordKind.OBJECT_INLINE, b"h" * 16, version.timestamp, info_of(version, debt), b"abc")), SALT
    ).info
    assert version_of(Kind.OBJECT, version.timestamp, info) == version
    assert info.debt is not None
    assert debt_of(info.debt) == debt


@given(st.binary(max_size=300), st.integers(0, 2**32 - 1), st.sampled_from(RecordKind))
def test_round_trip(data: bytes, salt: int, kind: RecordKind) -> None:
    record = Record(kind, b"h" * 16, Timestamp(77, 3), Info(("a", "c", "o")), data)
    assert _plain(decode_record(_encoded(record, salt), salt)) == _plain(record)


@given(st.binary(max_size=400))
def test_decoder_refuses_any_other_bytes(data: bytes) -> None:
    with pytest.raises(BadRecord):
        decode_record(data, SALT)
    with pytest.raises(BadRecord):
        decode_info(data, SALT)


@given(st.integers(0, 10**9), st.integers(0, 7))
def test_one_flipped_bit_is_seen(place: int, bit: int) -> None:
    data = bytearray(_encoded(_golden_records()[0]))
    data[place % len(data)] ^= 1 << bit
    with pytest.raises(BadRecord):
        decode_record(data, SALT)


def test_the_salt_belongs_to_the_record() -> None:
    with pytest.raises(BadRecord):
        decode_record(_encoded(_golden_records()[0], 1), 2)


@given(st.integers(0, 2**32), st.integers(1, 200))
def test_scan_loses_only_what_was_harmed(seed: int, step: int) -> None:
    """Harm some records of a segment in every way, feed it in pieces: all others are found, and every byte is accounted for."""
    rng = random.Random(seed)
    parts, sound = [], []
    at = 0
    for number in range(rng.randrange(1, 12)):
        body = rng.randbytes(rng.randrange(0, 120))
        if rng.random() < 0.2:  # a body that holds a record of another segment
            body += _encoded(_golden_records()[0], SALT ^ 1)
        data = bytearray(
            _encoded(Record(RecordKind.OBJECT_INLINE, bytes([number]) * 16, Timestamp(number), Info(("a", "c", "o")), body))
        )
        if rng.random() < 0.3:
            for _ in range(rng.randrange(1, 9)):
                data[rng.randrange(len(data))] ^= rng.randrange(1, 256)
        try:
            decode_record(data, SALT)
            sound.append((at, number))
        except BadRecord:
            pass
        parts.append(bytes(data))
        at += len(data)
    segment = b"".join(parts)
    scanner = Scanner(SALT, 0)
    findings: list[Finding] = []
    for start in range(0, len(segment), step):
        findings += scanner.feed(segment[start : start + step], last=start + step >= len(segment))
    assert [(f.offset, f.record.hash[0]) for f in findings if isinstance(f, Found)] == sound
    end = 0
    for finding in findings:
        assert finding.offset == end
        end = finding.end if isinstance(finding, Damaged) else finding.offset + finding.length
    assert end == len(segment)


def test_damage_tells_the_name_when_it_can() -> None:
    first, second = _golden_records()[:2]
    data = bytearray(_encoded(first) + _encoded(second))
    data[len(_encoded(first)) - 5] ^= 1
    damaged, found = Scanner(SALT, 0).feed(bytes(data), last=True)
    assert isinstance(damaged, Damaged)
    assert damaged.head is not None
    assert damaged.head.key == first.hash + first.timestamp.pack_inverted()
    assert isinstance(found, Found)
    assert found.record.kind == RecordKind.METADATA


def test_torn_end() -> None:
    data = _encoded(_golden_records()[0])
    findings = Scanner(SALT, 0).feed(data + data[:-1], last=True)
    assert isinstance(findings[0], Found)
    assert findings[1:] == [Damaged(len(data), 2 * len(data) - 1, None, True)]

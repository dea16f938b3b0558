"""A scan that only looks for damage says what a full one says, and skips exactly what decodes."""

from __future__ import annotations

import random
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ring.timestamp import Timestamp
from storage.object.errors import BadRecord
from storage.object.record import Info, Origin, Record, RecordKind, decode_record, encode_record
from storage.object.scan import Damaged, Finding, Scanner, skip_sound

SALT = 7


def encoded(record: Record, salt: int = SALT) -> bytes:
    return b"".join(encode_record(record, salt)[0])


def segment_of(rng: random.Random) -> bytes:
    """Records of every kind and flag, some of them harmed."""
    parts = []
    for number in range(rng.randrange(1, 12)):
        info = Info(("a", "c", "o" * rng.randrange(1, 40)))
        origin = Origin(number, 64) if rng.random() < 0.3 else None
        body = rng.randbytes(rng.randrange(0, 120))
        kind = rng.choice(list(RecordKind))
        data = bytearray(encoded(Record(kind, rng.randbytes(16), Timestamp(number), info, body, rng.random() < 0.3, origin)))
        if rng.random() < 0.3:
            for _ in range(rng.randrange(1, 9)):
                data[rng.randrange(len(data))] ^= rng.randrange(1, 256)
        if rng.random() < 0.1:
            del data[rng.randrange(len(data)) :]
        parts.append(bytes(data))
    return b"".join(parts)


def scanned(segment: bytes, step: int, *, only_damage: bool) -> list[Finding]:
    scanner = Scanner(SALT, 0, only_damage=only_damage)
    findings: list[Finding] = []
    for start in range(0, len(segment), step):
        findings += scanner.feed(segment[start : start + step], last=start + step >= len(segment))
    assert scanner.offset <= len(segment)
    return findings


@given(st.integers(0, 2**32), st.integers(1, 300))
def test_the_damage_is_the_same(seed: int, step: int) -> None:
    segment = segment_of(random.Random(seed))
    full = scanned(segment, step, only_damage=False)
    quick = scanned(segment, step, only_damage=True)
    assert [one for one in quick if isinstance(one, Damaged)] == [one for one in full if isinstance(one, Damaged)]


@given(st.integers(0, 2**32))
def test_it_skips_what_decodes_and_nothing_else(seed: int) -> None:
    segment = segment_of(random.Random(seed))
    at = 0
    while at < len(segment):
        try:
            decode_record(segment, SALT, at, raw=True)
        except BadRecord:
            break
        at += int.from_bytes(segment[at + 4 : at + 8], "big")
    assert skip_sound(segment, SALT, 0) == at


@pytest.mark.parametrize("place", range(60))
def test_one_flipped_bit_stops_it(place: int) -> None:
    record = Record(RecordKind.OBJECT_INLINE, bytes(16), Timestamp(1), Info(("a", "c", "o")), b"data")
    data = bytearray(encoded(record))
    assert skip_sound(bytes(data) * 2, SALT, 0) == 2 * len(data)
    data[place % len(data)] ^= 1 << place % 8
    assert skip_sound(bytes(data), SALT, 0) == 0


def test_what_it_does_not_know_is_left_to_the_decoder() -> None:
    """A whole record of a newer kind: no damage, and not skipped either."""
    data = bytearray(encoded(Record(RecordKind.DROP, bytes(16), Timestamp(1), Info(("a", "c", "o")))))
    newer = encoded_as(data, kind=200)
    assert skip_sound(newer, SALT, 0) == 0
    (finding,) = scanned(newer, len(newer), only_damage=True)
    assert isinstance(finding, Damaged) and finding.foreign


def encoded_as(data: bytearray, *, kind: int) -> bytes:
    """With another kind, and checksums that fit."""
    changed = bytearray(data)
    changed[40] = kind
    meta = int.from_bytes(changed[44:48], "big")
    checksum = zlib.crc32(changed[12 : 48 + meta], zlib.crc32(changed[4:8], SALT))
    changed[8:12] = checksum.to_bytes(4, "big")
    changed[-4:] = zlib.crc32(changed[48 + meta : -4], checksum).to_bytes(4, "big")
    return bytes(changed)

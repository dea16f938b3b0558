"""Golden bytes of what is neither a record nor a label: a file's identity, and an entry of the index."""

from __future__ import annotations

from pathlib import Path as FilePath

import msgspec
import pytest

from ring.errors import FormatError
from ring.timestamp import Timestamp
from storage.object.entry import Entry, EntryHead, Held
from storage.object.files import Identity, file_path, hash_of, version_in
from storage.object.record import RecordKind
from storage.object.segment import SegmentName, arrange, plain
from storage.object.segments import Place

GOLDEN = FilePath(__file__).parents[2] / "golden"
HASH = bytes(range(16))
VERSION = Timestamp(170000000012345, 3)
ENTRY = Entry(
    RecordKind.OBJECT_FILE,
    Place(7, 4096, 300, 248),
    5 << 20,
    "5d41402abc4b2a76b9719d911017c592",
    Timestamp(170000000099999).pack(),
    Place(8, 32, 250, 198),
    EntryHead("text/plain", {"x-object-meta-a": "1"}),
    1,
    1_700_000_600,
    Timestamp(170000000012300).pack(),
)


def test_identity() -> None:
    identity = Identity(HASH, VERSION, 5 << 20, 0xDEADBEEF)
    data = (GOLDEN / "file-identity.bin").read_bytes()
    assert identity.encode() == data
    assert len(data) == 48
    assert Identity.decode(data) == identity
    for place in range(len(data)):
        with pytest.raises(FormatError):
            Identity.decode(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])


def test_entry() -> None:
    data = (GOLDEN / "index-entry.bin").read_bytes()
    assert msgspec.msgpack.encode(ENTRY) == data
    assert msgspec.msgpack.decode(data, type=Entry) == ENTRY


def test_digest_says_what_is_held_and_not_how() -> None:
    held = Held(HASH, VERSION, ENTRY)
    inline = msgspec.structs.replace(
        ENTRY, kind=RecordKind.OBJECT_INLINE, place=Place(1, 2, 3, 4), posted=None, head=None, serial=0
    )
    assert Held(HASH, VERSION, inline).digest == held.digest
    assert held.digest.hex() == "5282cb26686f932568d71d3851459d9d"
    for other in (
        msgspec.structs.replace(ENTRY, etag="x"),
        msgspec.structs.replace(ENTRY, posted_at=b""),
        msgspec.structs.replace(ENTRY, kind=RecordKind.TOMBSTONE),
    ):
        assert Held(HASH, VERSION, other).digest != held.digest


def test_names() -> None:
    path = file_path(HASH, VERSION, 0)
    assert path == "files/000/000102030405060708090a0b0c0d0e0f-00009a9d359cd03900000003"
    for serial in (0, 12):
        name = file_path(HASH, VERSION, serial).rpartition("/")[2]
        assert (hash_of(name), version_in(name)) == (HASH, VERSION)
    for name in ("", "x", "0102-03", ".hidden", "000102030405060708090a0b0c0d0e0f", "zz" * 16 + "-00"):
        assert hash_of(name) is None or version_in(name) is None


COMPACTED = SegmentName(0x80000003, 2, 5)


def test_names_of_segments() -> None:
    assert plain(255).path == "packs/000000ff.pack"
    assert COMPACTED.path == "packs/80000003-00000002-00000005.pack"
    for name in (plain(255), COMPACTED):
        assert SegmentName.parse(name.path.removeprefix("packs/")) == name
    wrong = [
        "ff.pack",
        "000000ff",
        "000000ff.tmp",
        "zzzzzzzz.pack",
        "",
        "000000FF.pack",
        "80000003.pack",
        "00000001-00000001-00000002.pack",
    ]
    wrong += ["80000003-00000002.pack", "80000003-00000005-00000002.pack", "80000003-00000000-00000002.pack"]
    assert [SegmentName.parse(name) for name in wrong] == [None] * len(wrong)


def test_compacted_segments_take_the_place_of_what_they_stand_for() -> None:
    one, two, three, four = (plain(number) for number in (1, 2, 3, 4))
    first, again, wider = SegmentName(0x80000001, 2, 2), SegmentName(0x80000002, 2, 2), SegmentName(0x80000003, 2, 3)
    assert arrange([four, two, one]) == ([one, two, four], [])
    assert arrange([one, two, three, first]) == ([one, first, three], [two])
    assert arrange([one, first, again, three]) == ([one, again, three], [first])
    assert arrange([one, two, three, first, again, wider, four]) == ([one, wider, four], [two, three, first, again])
    assert arrange([]) == ([], [])

"""Every format: what an older program wrote is read, and what a newer one wrote is refused with one clear line.

What a whole device does is tests/storage/object/test_upgrade.py's.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable
from pathlib import Path as FilePath
from typing import Any

import pytest

from blockgw.volume import logfile
from blockgw.volume import segment as volume_segment
from proxy.large import manifest, records
from ring.errors import FormatError, NewerFormat
from ring.kv import log as kv_log
from ring.names import NameHasher
from ring.ringfile import decode as decode_ring
from ring.service import edition
from storage.container import returning
from storage.object import returned
from storage.object.device import Label
from storage.object.files import Identity
from storage.object.segment import SegmentHead
from storage.rows import log as row_log
from storage.sync import standing

GOLDEN = FilePath(__file__).parents[1] / "golden"
HASHER = NameHasher(b"", b"")


def golden(name: str) -> bytes:
    return (GOLDEN / name).read_bytes()


def number(at: int, length: int, order: str = "big") -> Callable[[bytes], bytes]:
    """The version is this number, and no checksum is looked at before it."""

    def newer(data: bytes) -> bytes:
        version = int.from_bytes(data[at : at + length], order)  # type: ignore[arg-type]  # "big" or "little"
        return data[:at] + (version + 1).to_bytes(length, order) + data[at + length :]  # type: ignore[arg-type]

    return newer


def sealed(at: int, length: int, end: int) -> Callable[[bytes], bytes]:
    """... and the head's last 4 bytes, up to ``end``, are its CRC-32."""

    def newer(data: bytes) -> bytes:
        body = number(at, length)(data)[: end - 4]
        return body + zlib.crc32(body).to_bytes(4, "big") + data[end:]

    return newer


def kv_newer(data: bytes) -> bytes:
    body = number(8, 2)(data)
    end = 24 + int.from_bytes(data[12:20], "big")
    return body[:20] + zlib.crc32(body[24:end], zlib.crc32(body[:20])).to_bytes(4, "big") + body[24:]


def member(name: str, step: Callable[[Any], Any] = lambda version: version + 1) -> Callable[[bytes], bytes]:
    """A member of JSON without a checksum over it."""

    def newer(data: bytes) -> bytes:
        body = json.loads(data)
        return json.dumps({**body, name: step(body[name])}, separators=(",", ":")).encode()

    return newer


def checked(name: str, step: Callable[[Any], Any] = lambda version: version + 1) -> Callable[[bytes], bytes]:
    """... with the checksum of our small JSON files."""

    def newer(data: bytes) -> bytes:
        body = json.loads(member(name, step)(data))
        del body["checksum"]
        checksum = zlib.crc32(json.dumps(body, sort_keys=True, separators=(",", ":")).encode())
        return json.dumps({**body, "checksum": f"{checksum:08x}"}).encode()

    return newer


def row_segment(data: bytes) -> bytes:
    """The first thing in the golden file: a log segment, behind its length."""
    return data[4 : 4 + int.from_bytes(data[:4], "big")]


Decode = Callable[[bytes], object]
FORMATS: dict[str, tuple[bytes, Decode, Callable[[bytes], bytes], str]] = {
    "ring": (golden("ring-1.ring"), lambda data: decode_ring(data, HASHER), number(8, 2), "a ring file has format 2"),
    "edition 1": (golden("edition-1.json"), edition.decode, member("format", lambda _: 3), "an edition of rings has format 3"),
    "edition 2": (golden("edition-2.json"), edition.decode, member("format"), "an edition of rings has format 3"),
    "kv log": (golden("kv-log-1.log"), kv_log.decode, kv_newer, "a control-state log has format 2"),
    "label": (
        golden("device.json"),
        Label.decode,
        checked("formats", lambda formats: {**formats, "label": 2}),
        "device.json: what the device calls label has format 2",
    ),
    "pack": (golden("pack.bin"), SegmentHead.decode, sealed(8, 2, 64), "the segment has format 3"),
    "file": (
        golden("file-identity.bin"),
        Identity.decode,
        sealed(3, 1, 48),
        "a file's identity has format 2; this program knows up to 1",
    ),
    "rows": (
        row_segment(golden("rows.bin")),
        lambda data: row_log.decode_segment(data, int.from_bytes(data[12:16], "big"), last=True),
        sealed(8, 2, 20),
        "the log of rows has format 2",
    ),
    "mark": (
        golden("clean-1.json"),
        lambda data: standing.decode(data, "mark"),
        checked("format"),
        "the device's mark has format 2",
    ),
    "returned": (
        golden("returned-1.json"),
        lambda data: returned.decode(data, "x"),
        checked("format"),
        "was put aside has format 2",
    ),
    "returned rows": (
        golden("returned-rows-1.json"),
        lambda data: returning.decode(data, "x"),
        checked("format"),
        "rows that were put aside has format 2",
    ),
    "manifest": (golden("manifest.json"), manifest.decode, member("v"), "a manifest has format 2"),
    "upload": (golden("upload-record.json"), records.decode, member("v"), "an upload's record has format 2"),
    "volume log": (golden("volume-log.bin"), logfile.decode_header, number(8, 4, "little"), "the volume log has format 2"),
    "volume object": (
        golden("volume-segment.bin"),
        volume_segment.decode_segment_header,
        number(8, 4, "little"),
        "a volume object has format 2",
    ),
}


@pytest.mark.parametrize("name", sorted(FORMATS))
def test_what_was_written_is_read(name: str) -> None:
    data, decode, _, _ = FORMATS[name]
    assert decode(data) is not None


@pytest.mark.parametrize("name", sorted(FORMATS))
def test_what_is_newer_is_refused_with_a_clear_line(name: str) -> None:
    data, decode, newer, words = FORMATS[name]
    with pytest.raises(NewerFormat, match=words) as refused:
        decode(newer(data))
    assert "this program knows up to" in refused.value.message
    assert refused.value.hint == "run the newer version of ringfort that wrote it"
    assert isinstance(refused.value, FormatError)  # whoever does not know better takes it for what cannot be read

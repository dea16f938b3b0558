"""Swift's ``.ring.gz`` <-> Builder, as far as a ring says what its builder was.

Reads both formats that Swift 2.38 has, writes the first, which every Swift reads; byte for byte: docs/formats/swift-ring.md.  Pure.

A file says how much it unpacks to; nothing is unpacked beyond what its header accounts for, and the header's own size has a limit.
Gzip's own sum is checked, and in format 2 those of its sections, which are found by offsets of the packed file.
Neighbour: ``carry.py`` takes the devices and the table from here.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import struct
import zlib
from typing import Annotated, Final, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from ring.builder.builder import REPLICAS_MAX, Builder
from ring.errors import BadInput, Conflict, FormatError
from ring.swift.carry import (
    FromSwift,
    KnownRecord,
    Record,
    Whole,
    check_next_part_power,
    check_part_power,
    device_record,
    devices_of,
    table_of,
)

MAGIC = b"R1NG"
MIN_PART_HOURS = 24  # what Swift assumes too where it makes a builder of a ring
MTIME = 1300507380  # in the gzip header, always: the same ring is the same bytes, as Swift does it
HEADER_BYTES_MAX = 32 << 20  # 65,535 devices of 500 bytes
_CHUNK = 1 << 20
_GZIP, _DEFLATE = 16 + zlib.MAX_WBITS, -zlib.MAX_WBITS
_INDEX_AT: Final = -31  # of format 2: 18 bytes deflated that say where the index is, 13 that end a gzip file
_DIGESTS = ("md5", "sha1", "sha256", "sha512")


class _Header(msgspec.Struct):
    part_shift: int
    replica_count: Annotated[float, msgspec.Meta(ge=0)]
    devs: list[Record | None] = []
    byteorder: str = "little"
    dev_id_bytes: int = 2
    version: Whole | None = None
    next_part_power: int | None = None


class _KnownHeader(_Header, forbid_unknown_fields=True):
    """A header without anything that would be left behind."""

    devs: list[KnownRecord | None] = []  # type: ignore[assignment]  # of a subclass, and only read


T = TypeVar("T")
Index = dict[str, tuple[int, int, int, int, str, str]]  # of format 2, by section: packed start, start, packed end, end, digest


# ---- reading


def decode_ring_gz(data: bytes, *, min_part_hours: int = MIN_PART_HOURS) -> FromSwift:
    """FormatError unless it is a whole ring; BadInput or Conflict when a ring of ours cannot hold what it says."""
    try:
        start = _Inflated(data, 0, _GZIP).read(6)
        if start[:4] != MAGIC:
            hint = "one of the oldest Swifts wrote it: let swift-ring-builder write it anew" if start[:1] == b"\x80" else ""
            raise FormatError("not a Swift ring file", hint=hint)
        version = int.from_bytes(start[4:], "big")
        if version not in (1, 2):
            raise FormatError(f"a Swift ring file of format {version}; 1 and 2 are known")
        notes: list[str] = []
        header, rows = (_decode_1 if version == 1 else _decode_2)(data, notes)
    except (zlib.error, msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise FormatError(f"a Swift ring file that cannot be read: {error}") from error
    part_power = 32 - header.part_shift
    if not rows or not len(rows[0]):
        raise BadInput("a Swift ring in which nothing is placed", hint="import its .builder instead")
    replicas = len(rows) - 1 + len(rows[-1]) / (1 << part_power)
    builder = Builder.create(part_power, replicas, min_part_hours)
    builder.devices = devices_of(header.devs)
    builder.version = header.version or 0
    builder.next_part_power = check_next_part_power(header.next_part_power, part_power)
    builder.table = table_of(rows, part_power, builder.devices)
    builder.validate()
    notes.append(
        f"not in a ring, so assumed: {min_part_hours} min part hours, no overload, nothing being removed, all free to move"
    )
    if header.version is None:
        notes.append("not in this ring, so assumed: version 0")
    return FromSwift(builder, f"ring v{version}", tuple(notes))


Rows = list[NDArray[np.unsignedinteger]]


def _decode_1(data: bytes, notes: list[str]) -> tuple[_Header, Rows]:
    inflated = _Inflated(data, 0, _GZIP)
    inflated.read(6)
    length = int.from_bytes(inflated.read(4), "big")
    if length > HEADER_BYTES_MAX:
        raise FormatError(f"a Swift ring file with a header of {length} bytes")
    header = _read_json(inflated.read(length), _KnownHeader, _Header, notes)
    _check(header)
    if header.byteorder not in ("little", "big") or header.replica_count != int(header.replica_count):
        raise FormatError("a Swift ring file whose header makes no sense")
    dtype = np.dtype("<u2" if header.byteorder == "little" else ">u2")
    rows: Rows = []
    for replica in range(int(header.replica_count)):
        row = inflated.read(2 << 32 - header.part_shift, short=replica + 1 == header.replica_count)
        if len(row) % 2:
            raise FormatError("a Swift ring file is cut short")
        rows.append(np.frombuffer(row, dtype).astype(np.uint16))
    inflated.finish()
    return header, rows


def _decode_2(data: bytes, notes: list[str]) -> tuple[_Header, Rows]:
    at = int.from_bytes(_Inflated(data, len(data) + _INDEX_AT, _DEFLATE).read(8), "big")
    raw_index, prefix = _Inflated(data, at, _DEFLATE).blob(HEADER_BYTES_MAX)
    index = msgspec.json.decode(raw_index, type=Index)
    header = _read_json(_section(data, index, "metadata", HEADER_BYTES_MAX), _KnownHeader, _Header, notes)
    _check(header)
    devices = _section(data, index, "devices", HEADER_BYTES_MAX)
    header.devs = _read_json(devices, list[KnownRecord | None], list[Record | None], notes)  # type: ignore[arg-type]  # read, never added to
    if header.dev_id_bytes not in (2, 4):
        raise FormatError(f"a Swift ring file with device ids of {header.dev_id_bytes} bytes")
    dtype = np.dtype(f">u{header.dev_id_bytes}")
    row_bytes = dtype.itemsize << 32 - header.part_shift
    table = _section(data, index, "assignments", int(header.replica_count * row_bytes) + row_bytes)
    if len(table) % dtype.itemsize:
        raise FormatError("a Swift ring file is cut short")
    flat = np.frombuffer(table, dtype).astype(dtype.newbyteorder("="))
    rows = [flat[start : start + (row_bytes // dtype.itemsize)] for start in range(0, len(flat), row_bytes // dtype.itemsize)]
    whole = _Inflated(data, 0, _GZIP)
    whole.skip(max(end for _, _, _, end, _, _ in index.values()) + len(prefix) + len(raw_index) + 16)
    whole.finish()
    unknown = sorted(index.keys() - {f"swift/ring/{name}" for name in ("metadata", "devices", "assignments")})
    if unknown:
        notes.append(f"left behind: {', '.join(unknown)}")
    return header, list(rows)


def _section(data: bytes, index: Index, name: str, bytes_max: int) -> bytes:
    entry = index.get(f"swift/ring/{name}")
    if entry is None:
        raise FormatError(f"a Swift ring file without {name}")
    at, start, _, end, method, digest = entry
    blob, prefix = _Inflated(data, at, _DEFLATE).blob(bytes_max)
    if method not in _DIGESTS or len(prefix) + len(blob) != end - start or hashlib.new(method, prefix + blob).hexdigest() != digest:
        raise FormatError(f"a Swift ring file whose {name} fail their checksum")
    return blob


def _read_json(text: bytes, known: type[T], tolerant: type[T], notes: list[str]) -> T:
    """Adds to ``notes`` what is left behind."""
    try:
        return msgspec.json.decode(text, type=known)
    except msgspec.ValidationError as error:
        read = msgspec.json.decode(text, type=tolerant)
        notes.append(f"left behind: {error}")
        return read


def _check(header: _Header) -> None:
    check_part_power(32 - header.part_shift)
    if header.replica_count > REPLICAS_MAX:
        raise BadInput(f"{header.replica_count:g} replicas; here they are at most {REPLICAS_MAX}")


class _Inflated:
    """Reads what is unpacked from ``data[at:]``, never more than it is asked for."""

    def __init__(self, data: bytes, at: int, wbits: int) -> None:
        if not 0 <= at < len(data):
            raise FormatError("a Swift ring file is cut short")
        self._inflate = zlib.decompressobj(wbits)
        self._packed = memoryview(data)[at:]

    def read(self, count: int, *, short: bool = False) -> bytes:
        """``short``: the end may come earlier."""
        pieces = []
        missing = count
        while missing and not self._inflate.eof:
            packed = self._packed[:_CHUNK]
            piece = self._inflate.decompress(packed, missing)
            self._packed = self._packed[len(packed) - len(self._inflate.unconsumed_tail or self._inflate.unused_data) :]
            if not packed and not piece:
                break
            pieces.append(piece)
            missing -= len(piece)
        if missing and not (short and self._inflate.eof):
            raise FormatError("a Swift ring file is cut short")
        return b"".join(pieces)

    def blob(self, bytes_max: int) -> tuple[bytes, bytes]:
        """A blob of format 2, and the 8 bytes of length before it."""
        prefix = self.read(8)
        length = int.from_bytes(prefix, "big")
        if length > bytes_max:
            raise FormatError(f"a Swift ring file with {length} bytes where at most {bytes_max} can be")
        return self.read(length), prefix

    def skip(self, count: int) -> None:
        for start in range(0, count, _CHUNK):
            self.read(min(_CHUNK, count - start))

    def finish(self) -> None:
        if self.read(1, short=True) or self._packed:
            raise FormatError("a Swift ring file with something behind its end")


# ---- writing


def encode_ring_gz(builder: Builder) -> bytes:
    """Format 1, little-endian.  Conflict before the first rebalance."""
    if not builder.table:
        raise Conflict("nothing is placed yet", hint="rebalance first")
    header: dict[str, object] = {
        "byteorder": "little",
        "devs": [None if device is None else device_record(device) for device in builder.devices],
        "part_shift": 32 - builder.part_power,
        "replica_count": len(builder.table),
        "version": builder.version,
    }
    if builder.next_part_power is not None:
        header["next_part_power"] = builder.next_part_power
    text = json.dumps(header, sort_keys=True).encode("ascii")
    table = b"".join(row.astype("<u2").tobytes() for row in builder.table)
    return gzip.compress(struct.pack(">4sHI", MAGIC, 1, len(text)) + text + table, mtime=MTIME)

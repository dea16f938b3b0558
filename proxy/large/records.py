"""An upload's record: what is being uploaded, and how far it has come; and the names of records and parts.  Pure.

The state is in the record's content type as well, so that a listing shows it.  ``attempt`` is new with every write: a conditional
write on the record's ETag then tells whether anybody else has been at it.  Format: docs/formats/manifest.md.
"""

from __future__ import annotations

import re
from enum import Enum

import msgspec

from proxy.large.manifest import Part
from ring.errors import FormatError, NewerFormat

VERSION = 1
RECORDS = "uploads/"
PARTS = "parts/"
KV_PREFIX = "large/"  # large/ACCOUNT/CONTAINER: there is, or has been, an upload in this container
_TYPE = "application/vnd.ringfort.upload+json; state="
_ID = re.compile(r"[0-9a-f]{32}")


class State(Enum):
    OPEN = "open"  # takes parts
    COMPLETING = "completing"  # its parts are fixed; the manifest may or may not be stored
    COMPLETE = "complete"  # the manifest has been stored
    SETTLED = "settled"  # and parts that it does not name are gone
    DOOMED = "doomed"  # nobody owns the parts; readers may still be at them for a while


class Record(msgspec.Struct, frozen=True):
    v: int
    state: State
    attempt: str
    key: str  # the object's name
    content_type: str
    metadata: dict[str, str]
    begun: float  # wall seconds
    parts: tuple[Part, ...] = ()


def encode(record: Record) -> bytes:
    return msgspec.json.encode(record)


def decode(data: bytes) -> Record:
    """Raises FormatError."""
    try:
        record = msgspec.json.decode(data, type=Record)
    except msgspec.MsgspecError as error:
        raise FormatError(f"not an upload's record: {error}") from error
    if record.v > VERSION:
        raise NewerFormat("an upload's record", record.v, VERSION)
    if record.v != VERSION:
        raise FormatError(f"not an upload's record: it has format {record.v}")
    return record


def content_type(state: State) -> str:
    return _TYPE + state.value


def state_of(text: str) -> State | None:
    """Of a listing's content type; None when it is no record's."""
    try:
        return State(text.removeprefix(_TYPE)) if text.startswith(_TYPE) else None
    except ValueError:
        return None


def is_id(text: str) -> bool:
    return _ID.fullmatch(text) is not None


def record_name(upload_id: str) -> str:
    return RECORDS + upload_id


def parts_prefix(upload_id: str) -> str:
    return f"{PARTS}{upload_id}/"


def part_name(upload_id: str, number: int, nonce: str) -> str:
    return f"{PARTS}{upload_id}/{number:05d}/{nonce}"


def part_number(name: str) -> int:
    """The number in a part's name.  Raises FormatError."""
    fields = name.split("/")
    if len(fields) != 4 or not fields[2].isdigit():
        raise FormatError(f"not a part's name: {name[:80]!r}")
    return int(fields[2])


def kv_key(account: str, container: str) -> str:
    return f"{KV_PREFIX}{account}/{container}"

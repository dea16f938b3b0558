"""Shapes: between versions, as devices hold them, and what the facade and its users speak of.  Pure.

Neighbours: objects and register (users), interface and node (the two sides).
"""

from __future__ import annotations

from ring.names import Path
from ring.timestamp import Timestamp
from storage.client.interface import NewObject, ObjectMeta, Row
from storage.client.node import Kind, Version

LISTING_ETAG = "x-sysmeta-listing-etag"  # what listings show instead of the MD5 and the size, kept with the object
LISTING_SIZE = "x-sysmeta-listing-size"


def version_of(path: Path, new: NewObject, timestamp: Timestamp, size: int, etag: str) -> Version:
    metadata = dict(new.metadata)
    if new.listing_etag:
        metadata[LISTING_ETAG] = new.listing_etag
    if new.listing_size is not None:
        metadata[LISTING_SIZE] = str(new.listing_size)
    return Version(path, timestamp, Kind.OBJECT, size, etag, new.content_type, metadata)


def row_of(version: Version) -> Row:
    """What its container lists."""
    if version.kind is Kind.TOMBSTONE:
        return Row(version.path.object, version.timestamp, deleted=True)
    size = int(version.metadata.get(LISTING_SIZE, version.size))
    etag = version.metadata.get(LISTING_ETAG, version.etag)
    return Row(version.path.object, version.timestamp, size, etag, version.content_type)


def meta_of(version: Version) -> ObjectMeta:
    return ObjectMeta(
        version.timestamp, version.size, version.etag, version.content_type, version.metadata, version.metadata_timestamp
    )

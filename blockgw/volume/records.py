"""Volumes as they lie in kv.  Pure.

blockgw/volumes/<id>   VolumeRecord: what is wanted and how far it is (Cinder's status words)
blockgw/exports/<id>   Export: how the server it is attached to reaches it; present while attached
"""

from __future__ import annotations

import zlib

import msgspec

from blockgw.client.interface import Volume, VolumeStatus

VOLUMES = "blockgw/volumes/"
EXPORTS = "blockgw/exports/"
CHAP_PURPOSE = "chap secret"
GIB = 1 << 30


class VolumeRecord(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    project_id: str
    user_id: str
    name: str = ""
    description: str = ""
    size_gib: int
    status: str
    created: float
    updated: float
    image_id: str = ""
    metadata: dict[str, str] = {}
    server_id: str = ""
    device: str = ""
    message: str = ""


class Export(msgspec.Struct, frozen=True, kw_only=True):
    chap_user: str
    sealed_secret: str  # under the root key


def iqn(volume_id: str) -> str:
    return f"iqn.2026-01.org.ringfort:volume-{volume_id}"


def volume_of_iqn(name: str) -> str | None:
    head, found, volume_id = name.partition(":volume-")
    return volume_id if found and head == "iqn.2026-01.org.ringfort" and volume_id else None


def worker_of(volume_id: str, workers: int) -> int:
    """Which of the machine's workers opens a volume."""
    return zlib.crc32(volume_id.encode()) % workers


def encode(record: VolumeRecord | Export) -> bytes:
    return msgspec.json.encode(record)


def decode_volume(data: bytes) -> VolumeRecord:
    return msgspec.json.decode(data, type=VolumeRecord)


def decode_export(data: bytes) -> Export:
    return msgspec.json.decode(data, type=Export)


def to_volume(record: VolumeRecord) -> Volume:
    return Volume(
        id=record.id,
        project_id=record.project_id,
        user_id=record.user_id,
        name=record.name,
        size_gib=record.size_gib,
        status=VolumeStatus(record.status),
        created=record.created,
        updated=record.updated,
        image_id=record.image_id,
        bootable=bool(record.image_id),
        description=record.description,
        metadata=record.metadata,
        server_id=record.server_id,
        device=record.device,
        message=record.message,
    )

"""Image records (Image API v2, "Images"): as they lie in kv, as the API shows them, and how JSON patches change them.  Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from blockgw.client.interface import ImageData
from identity.client.interface import Access
from ring.errors import BadInput

IMAGES = "images/"
DISK_FORMATS = ("ami", "ari", "aki", "vhd", "vhdx", "vmdk", "raw", "qcow2", "vdi", "iso", "ploop")
CONTAINER_FORMATS = ("ami", "ari", "aki", "bare", "ovf", "ova", "docker", "compressed")
VISIBILITIES = ("private", "shared", "community", "public")
PROPERTIES_MAX = 128
NUMBER_MAX = 2**31 - 1  # of min_disk and min_ram, as in Glance's schema
PROPERTY_CHARACTERS_MAX = 4096


class ImageRecord(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    owner: str  # project id
    status: str = "queued"  # queued saving importing active killed
    uploader: str = ""  # who is saving it: an Owner as text
    name: str = ""
    disk_format: str | None = None
    container_format: str | None = None
    visibility: str = "shared"
    min_disk: int = 0  # GiB
    min_ram: int = 0  # MiB
    protected: bool = False
    os_hidden: bool = False
    tags: list[str] = []
    properties: dict[str, str] = {}
    size: int | None = None
    virtual_size: int | None = None
    checksum: str | None = None
    sha512: str | None = None
    source: str = ""  # of an import: "s3://BUCKET/KEY" or "swift://CONTAINER/OBJECT"
    imported: int = 0  # bytes so far
    message: str = ""
    created: float
    updated: float


# Fields that a client may set, and what values they take.
_SETTABLE: dict[str, type] = {
    "name": str,
    "disk_format": str,
    "container_format": str,
    "visibility": str,
    "min_disk": int,
    "min_ram": int,
    "protected": bool,
    "os_hidden": bool,
    "tags": list,
}
_READ_ONLY = frozenset(
    [
        "id",
        "owner",
        "status",
        "size",
        "virtual_size",
        "checksum",
        "os_hash_algo",
        "os_hash_value",
        "created_at",
        "updated_at",
        "self",
        "file",
        "schema",
        "direct_url",
        "locations",
        "stores",
    ]
)
_CHOICES = {"disk_format": DISK_FORMATS, "container_format": CONTAINER_FORMATS, "visibility": VISIBILITIES}


def decode(data: bytes) -> ImageRecord:
    return msgspec.json.decode(data, type=ImageRecord)


def encode(record: ImageRecord) -> bytes:
    return msgspec.json.encode(record)


def visible_to(record: ImageRecord, access: Access) -> bool:
    return access.is_admin or record.owner == access.project_id or record.visibility in ("public", "community")


def with_fields(record: ImageRecord, given: Mapping[str, Any]) -> ImageRecord:
    """The record with a client's fields; unknown names are properties.  BadInput."""
    changes: dict[str, Any] = {}
    properties = dict(record.properties)
    for name, value in given.items():
        if name in _READ_ONLY:
            raise BadInput(f"Attribute '{name}' is read-only.")
        kind = _SETTABLE.get(name)
        if kind is None:
            if not isinstance(value, str) or len(value) > PROPERTY_CHARACTERS_MAX or len(name) > 255:
                raise BadInput(f"Property '{name:.64}' must be a string of at most {PROPERTY_CHARACTERS_MAX} characters.")
            properties[name] = value
        elif value is None and name in ("disk_format", "container_format", "name"):
            changes[name] = "" if name == "name" else None
        elif not isinstance(value, kind) or (kind is int and not _natural(value)):
            raise BadInput(f"Invalid value for '{name}': {value!r:.64}")
        elif name in _CHOICES and value not in _CHOICES[name]:
            raise BadInput(f"Invalid value '{value:.64}' for '{name}': one of {', '.join(_CHOICES[name])}.")
        else:
            changes[name] = value
    if len(properties) > PROPERTIES_MAX:
        raise BadInput(f"An image has at most {PROPERTIES_MAX} properties.")
    if len(changes.get("name", "")) > 255 or not all(isinstance(tag, str) and len(tag) <= 255 for tag in changes.get("tags", [])):
        raise BadInput("Names and tags have at most 255 characters.")
    return msgspec.structs.replace(record, properties=properties, **changes)


def with_data(record: ImageRecord, data: ImageData) -> ImageRecord:
    """The record once its bytes are there."""
    return msgspec.structs.replace(
        record,
        status="active",
        size=data.size,
        virtual_size=data.virtual_size,
        checksum=data.md5,
        sha512=data.sha512,
        message="",
    )


def _natural(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= NUMBER_MAX


def patched(record: ImageRecord, patch: Sequence[Any]) -> ImageRecord:
    """After a JSON patch of the forms that Glance takes (Image API v2, "Update image"): add, replace and remove of
    a top-level name."""
    for change in patch:
        if not isinstance(change, dict) or not isinstance(change.get("path"), str):
            raise BadInput("A patch is a list of objects with 'op' and 'path'.")
        name = change["path"].removeprefix("/").replace("~1", "/").replace("~0", "~")
        if not change["path"].startswith("/") or not name:
            raise BadInput(f"Invalid path {change['path']!r:.64}")
        match change.get("op"):
            case "add" | "replace":
                if "value" not in change:
                    raise BadInput("A patch that adds or replaces has a 'value'.")
                record = with_fields(record, {name: change["value"]})
            case "remove":
                if name not in record.properties:
                    raise BadInput(f"Property {name:.64} does not exist or cannot be removed.")
                kept = {key: value for key, value in record.properties.items() if key != name}
                record = msgspec.structs.replace(record, properties=kept)
            case other:
                raise BadInput(f"Unknown operation {other!r:.64} in a patch.")
    return record


def render(record: ImageRecord) -> dict[str, Any]:
    body: dict[str, Any] = dict(record.properties)
    body |= {
        "id": record.id,
        "name": record.name,
        "status": record.status,
        "visibility": record.visibility,
        "owner": record.owner,
        "disk_format": record.disk_format,
        "container_format": record.container_format,
        "size": record.size,
        "virtual_size": record.virtual_size,
        "checksum": record.checksum,
        "os_hash_algo": "sha512" if record.sha512 else None,
        "os_hash_value": record.sha512,
        "min_disk": record.min_disk,
        "min_ram": record.min_ram,
        "protected": record.protected,
        "os_hidden": record.os_hidden,
        "tags": record.tags,
        "created_at": moment(record.created),
        "updated_at": moment(record.updated),
        "self": f"/v2/images/{record.id}",
        "file": f"/v2/images/{record.id}/file",
        "schema": "/v2/schemas/image",
    }
    if record.source:
        body["import_source"] = record.source
        body["import_bytes"] = str(record.imported)
    if record.message:
        body["import_message"] = record.message
    return body


def moment(seconds: float) -> str:
    """2026-01-01T00:00:00Z"""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

"""Volumes and images as compute sees them.

An image here is bytes only: a manifest of immutable segment objects in a hidden account.  Its record (name, owner, status) is
Glance's and lives in ``compute/images``.  A volume is desired state in kv (``volumes/<id>``) that its worker makes true.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol

from identity.client.interface import Access
from ring.names import Path
from ring.wire.message import Piece
from storage.client.interface import BodySource

Progress = Callable[[int, int | None], None]  # bytes done, bytes in all where known


@dataclass(frozen=True, slots=True)
class ImageData:
    size: int  # bytes as uploaded
    md5: str
    sha512: str
    disk_format: str  # as inspected: "raw", "qcow2", ...
    virtual_size: int  # of the disk inside


class Images(Protocol):
    """Bytes of images.  ``image_id`` is the Glance id."""

    async def store(self, image_id: str, body: BodySource, *, progress: Progress | None = None) -> ImageData:
        """Cut a stream into segments.  Whatever ``body.read`` raises leaves nothing behind."""

    async def copy(self, image_id: str, source: Path, *, progress: Progress | None = None) -> ImageData:
        """A server-side copy of an object of ours (manifests are understood).  ObjectNotFound."""

    async def read(self, image_id: str, *, offset: int = 0, length: int | None = None) -> AsyncIterator[Piece]:
        """The bytes as uploaded.  NotFound."""

    async def data(self, image_id: str) -> ImageData:
        """What is known of its bytes.  NotFound while there are none."""

    async def delete(self, image_id: str) -> None:
        """Conflict while a volume reads from it; no error when it is gone already."""


class VolumeStatus(Enum):
    """Cinder's words (API reference, block-storage v3, "volume status")."""

    CREATING = "creating"
    AVAILABLE = "available"
    RESERVED = "reserved"
    ATTACHING = "attaching"
    IN_USE = "in-use"
    DETACHING = "detaching"
    DELETING = "deleting"
    ERROR = "error"
    ERROR_DELETING = "error_deleting"


@dataclass(frozen=True, slots=True)
class Volume:
    id: str
    project_id: str
    user_id: str
    name: str
    size_gib: int
    status: VolumeStatus
    created: float  # wall seconds
    updated: float
    image_id: str = ""
    bootable: bool = False
    description: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)
    server_id: str = ""  # attached to
    device: str = ""  # /dev/vda
    message: str = ""  # why it is in error


@dataclass(frozen=True, slots=True)
class Connection:
    """How an initiator reaches a volume."""

    portal: str  # "127.0.0.1:3260"
    iqn: str
    lun: int
    chap_user: str
    chap_secret: str = field(repr=False)


class Volumes(Protocol):
    async def create(
        self,
        access: Access,
        *,
        size_gib: int,
        name: str = "",
        description: str = "",
        image_id: str = "",
        metadata: Mapping[str, str] | None = None,
    ) -> Volume:
        """Accepted (status creating).  From an image no byte is copied."""

    async def show(self, volume_id: str, *, project_id: str | None) -> Volume:
        """NotFound; also when it is another project's (``project_id`` None: any, for admins and the system)."""

    async def list(self, *, project_id: str | None) -> list[Volume]: ...

    async def update(self, volume_id: str, *, project_id: str | None, name: str | None, description: str | None) -> Volume: ...

    async def delete(self, volume_id: str, *, project_id: str | None) -> None:
        """Accepted (status deleting).  Conflict while attached."""

    async def attach(self, volume_id: str, *, server_id: str, device: str) -> Connection:
        """Reserve it for a server and say how to reach it; the same server may ask again.  Conflict when another has it."""

    async def detach(self, volume_id: str, *, server_id: str) -> None:
        """No error when it is not attached to that server."""

    async def wait_available(self, volume_id: str, *, timeout_s: float) -> Volume:
        """Until it is available; Conflict with its message when it ended in error, Unavailable at the timeout."""

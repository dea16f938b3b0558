"""The front door's objects for the rooms above it (images, volumes): what a client would GET, without HTTP.

Unlike ``storage.client`` this understands manifests: an object uploaded in parts (S3 multipart, Swift SLO) reads as one body.
"""

from __future__ import annotations

from typing import Protocol

from ring.names import Path
from storage.client.interface import ObjectMeta, Reading


class Objects(Protocol):
    async def head(self, path: Path) -> ObjectMeta:
        """Of the body a GET would send; ObjectNotFound."""

    async def read(self, path: Path, *, offset: int = 0, length: int | None = None) -> Reading:
        """ObjectNotFound."""

    def bucket(self, name: str, project_id: str) -> Path | None:
        """The container behind an S3 bucket name as seen by a project; None when there is none."""

"""Limits on names and metadata: what is too long is refused before anything is asked of storage.  Pure.

Standard: Swift's constraints (overview, "constraints" of /info); S3's keys have the same 1,024 bytes, its user metadata 2 KiB.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from proxy.errors import BadRequest, MetadataTooLarge, NameTooLong
from proxy.operations.verbs import (
    CopyObject,
    CreateUpload,
    Operation,
    PostAccount,
    PostContainer,
    PostObject,
    PutAccount,
    PutContainer,
    PutObject,
)
from ring.names import HIDDEN, NAME_BYTES_MAX, Path

_USER_PREFIXES = ("x-object-meta-", "x-container-meta-", "x-account-meta-")
_CARRIERS = (PutObject, PostObject, CopyObject, CreateUpload, PutContainer, PostContainer, PostAccount, PutAccount)


@dataclass(frozen=True, slots=True)
class Limits:
    object_bytes_max: int = 5 << 30
    metadata_name_bytes_max: int = 128
    metadata_value_bytes_max: int = 2048
    metadata_count_max: int = 90
    metadata_bytes_max: int = 4096
    listing_max: int = 10_000
    part_bytes_min: int = 5 << 20  # of every part but the last
    part_number_max: int = 10_000

    def check(self, operation: Operation) -> None:
        """Raises NameTooLong, MetadataTooLarge, BadRequest."""
        _check_names(operation.path)
        if isinstance(operation, _CARRIERS):
            if operation.metadata:
                self.check_metadata(operation.metadata)
            if isinstance(operation, CopyObject):
                _check_names(operation.source)

    def check_metadata(self, metadata: Mapping[str, str]) -> None:
        count = total = 0
        for name, value in metadata.items():
            prefix = next((prefix for prefix in _USER_PREFIXES if name.startswith(prefix)), None)
            if prefix is None:
                if len(value) > self.metadata_bytes_max:
                    raise MetadataTooLarge(f"Header value too long: {name}")
                continue
            key = name[len(prefix) :]
            if not key:
                raise MetadataTooLarge("Metadata name cannot be empty")
            if len(key) > self.metadata_name_bytes_max:
                raise MetadataTooLarge(f"Metadata name too long: {key[:60]}")
            if len(value) > self.metadata_value_bytes_max:
                raise MetadataTooLarge(f"Metadata value longer than {self.metadata_value_bytes_max}: {key}")
            count += 1
            total += len(key) + len(value)
        if count > self.metadata_count_max:
            raise MetadataTooLarge(f"Too many metadata items; max {self.metadata_count_max}")
        if total > self.metadata_bytes_max:
            raise MetadataTooLarge(f"Total metadata too large; max {self.metadata_bytes_max}")


def _check_names(path: Path) -> None:
    if HIDDEN in path.account or HIDDEN in path.container or HIDDEN in path.object:
        raise BadRequest("Invalid UTF8 or contains NULL", code="InvalidURI", status=412)
    for kind, name in (("account", path.account), ("container", path.container), ("object", path.object)):
        # A character has 1 to 4 bytes: only names in doubt are encoded.
        limit = NAME_BYTES_MAX[kind]
        if len(name) * 4 > limit and (length := len(name.encode())) > limit:
            raise NameTooLong(f"{kind.capitalize()} name length of {length} longer than {limit}")

"""What can go wrong at the front door, beside storage's and identity's errors.

BadInput             BadRequest NameTooLong MetadataTooLarge RangeNotSatisfiable LengthRequired
                     BadChecksum BadSignature ClockSkewed BadPart PartTooSmall PartOrder BadBucketName
Conflict             BucketTaken UploadBusy
NotFound             BucketNotFound UploadNotFound PartNotFound
Unavailable          Busy
RingfortError        NotSupported

``proxy/swift/errors.py`` and ``proxy/s3/errors.py`` each have one table from these to status, code and body.
"""

from __future__ import annotations

from ring.errors import BadInput, Conflict, NotFound, RingfortError, Unavailable
from storage.client.interface import ObjectMeta


class BadRequest(BadInput):
    """A parameter or header that cannot be used.  ``code`` is S3's word where it has one."""

    def __init__(self, message: str, *, code: str = "InvalidRequest", status: int = 400) -> None:
        super().__init__(message)
        self.code = code
        self.status = status


class NameTooLong(BadInput):
    """An account, container or object name beyond its limit."""


class MetadataTooLarge(BadInput):
    """Too many, too long, or too much metadata."""


class LengthRequired(BadInput):
    """A body needs Content-Length or a transfer coding."""


class RangeNotSatisfiable(BadInput):
    """No byte of the range is in the object."""

    def __init__(self, meta: ObjectMeta) -> None:
        super().__init__(f"the range is outside of the object's {meta.size} bytes")
        self.meta = meta


class BadChecksum(BadInput):
    """The body is not the one that a checksum announced.  ``code`` is S3's word."""

    def __init__(self, message: str, *, code: str = "BadDigest") -> None:
        super().__init__(message)
        self.code = code


class BadSignature(BadInput):
    """A signature that does not match, or a credential that is malformed or unknown.  ``code`` is S3's word."""

    def __init__(self, message: str, *, code: str = "SignatureDoesNotMatch", status: int = 403) -> None:
        super().__init__(message)
        self.code = code
        self.status = status


class ClockSkewed(BadInput):
    """Signed too far from now."""


class BadPart(BadInput):
    """A part that is not there, or not with that ETag."""


class PartOrder(BadInput):
    """Parts must be given in ascending order."""


class PartTooSmall(BadInput):
    """Only the last part may be below the least size."""


class BadBucketName(BadInput):
    """Not a name that a bucket can have."""


class BucketTaken(Conflict):
    """Another project holds the name."""


class UploadBusy(Conflict):
    """The upload is being completed with other parts."""


class BucketNotFound(NotFound):
    """No such bucket is visible to the caller."""


class UploadNotFound(NotFound):
    """Never begun, aborted, or completed."""


class PartNotFound(NotFound):
    """The object has no part of that number."""


class Busy(Unavailable):
    """Memory for requests is used up for now."""


class NotSupported(RingfortError):
    """A part of the protocol that is not there; it is refused, never taken for something else."""

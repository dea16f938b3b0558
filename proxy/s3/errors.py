"""The error tree as S3 answers it: one table to a code and a status, and the XML document around them.

Source: "Error responses", S3 API reference.
"""

from __future__ import annotations

from identity.client.interface import Forbidden, Unauthorized
from proxy import errors
from proxy.s3.xml import document, text
from ring.errors import BadInput, Conflict, NotFound, RingfortError, Unavailable
from ring.wire.message import BodyBroken, BodyTooLarge, Headers, Response
from storage.client.errors import (
    AccountGone,
    BadDigest,
    ContainerNotEmpty,
    ContainerNotFound,
    EntityTooLarge,
    NoRoom,
    ObjectNotFound,
    PreconditionFailed,
    Superseded,
)

# The first kind that fits decides.
CODES: tuple[tuple[type[RingfortError], str, int], ...] = (
    (Unauthorized, "AccessDenied", 403),
    (Forbidden, "AccessDenied", 403),
    (ObjectNotFound, "NoSuchKey", 404),
    (ContainerNotFound, "NoSuchBucket", 404),
    (errors.BucketNotFound, "NoSuchBucket", 404),
    (errors.UploadNotFound, "NoSuchUpload", 404),
    (errors.PartNotFound, "InvalidPartNumber", 416),
    (AccountGone, "AccountProblem", 403),
    (NotFound, "NoSuchKey", 404),
    (errors.NameTooLong, "KeyTooLongError", 400),
    (errors.MetadataTooLarge, "MetadataTooLarge", 400),
    (errors.LengthRequired, "MissingContentLength", 411),
    (errors.RangeNotSatisfiable, "InvalidRange", 416),
    (errors.ClockSkewed, "RequestTimeTooSkewed", 403),
    (errors.BadPart, "InvalidPart", 400),
    (errors.PartOrder, "InvalidPartOrder", 400),
    (errors.PartTooSmall, "EntityTooSmall", 400),
    (errors.BadBucketName, "InvalidBucketName", 400),
    (errors.BucketTaken, "BucketAlreadyExists", 409),
    (errors.UploadBusy, "OperationAborted", 409),
    (ContainerNotEmpty, "BucketNotEmpty", 409),
    (PreconditionFailed, "PreconditionFailed", 412),
    (Superseded, "OperationAborted", 409),
    (EntityTooLarge, "EntityTooLarge", 400),
    (BadDigest, "BadDigest", 400),
    (BodyTooLarge, "MaxMessageLengthExceeded", 400),
    (BodyBroken, "IncompleteBody", 400),
    (errors.NotSupported, "NotImplemented", 501),
    (errors.Busy, "SlowDown", 503),
    (NoRoom, "InsufficientStorage", 507),  # S3 has no code for it; 507 is what MinIO and others answer
    (Unavailable, "ServiceUnavailable", 503),
    (Conflict, "OperationAborted", 409),
    (BadInput, "InvalidArgument", 400),
)
_MESSAGES = {
    "AccessDenied": "Access Denied",
    "NoSuchKey": "The specified key does not exist.",
    "NoSuchBucket": "The specified bucket does not exist",
    "BucketNotEmpty": "The bucket you tried to delete is not empty",
    "BucketAlreadyExists": "The requested bucket name is not available. Please select a different name and try again.",
    "PreconditionFailed": "At least one of the pre-conditions you specified did not hold",
    "InvalidRange": "The requested range is not satisfiable",
    "EntityTooLarge": "Your proposed upload exceeds the maximum allowed object size.",
    "BadDigest": "The Content-MD5 or checksum value that you specified did not match what the server received.",
    "KeyTooLongError": "Your key is too long",
    "MissingContentLength": "You must provide the Content-Length HTTP header.",
    "ServiceUnavailable": "Service is unable to handle request.",
    "SlowDown": "Please reduce your request rate.",
    "InsufficientStorage": "There is no room for what was sent: the devices that should hold it are full.",
}


def code_of(error: RingfortError) -> tuple[str, int] | None:
    if isinstance(error, errors.BadRequest | errors.BadSignature):
        return error.code, error.status
    if isinstance(error, errors.BadChecksum):
        return error.code, 400
    return next(((code, status) for kind, code, status in CODES if isinstance(error, kind)), None)


def message_of(code: str, error: RingfortError) -> str:
    """S3's own words where it has them; what is wrong with a request says so itself."""
    if isinstance(error, errors.BadRequest | errors.BadSignature):
        return error.message
    return _MESSAGES.get(code) or error.message


def answer(error: RingfortError, resource: str, trans_id: str) -> Response:
    """Raises ``error`` again when it is in no row of the table: then it is a bug."""
    found = code_of(error)
    if found is None:
        raise error
    code, status = found
    headers = Headers([("content-type", "application/xml")])
    if isinstance(error, errors.RangeNotSatisfiable):
        headers.add("content-range", f"bytes */{error.meta.size}")
    body = text("Code", code) + text("Message", message_of(code, error)) + text("Resource", resource) + text("RequestId", trans_id)
    return Response(status, headers, document("Error", body, namespace=""))

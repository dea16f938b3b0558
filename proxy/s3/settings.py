"""What a bucket or object can be set to beyond its data, and is not: each answered as S3 answers for one that never was.

Clients ask before they do anything (tagging before a copy, a policy before a plan), and the truth costs nothing.  Setting any of
them is refused by app, so these answers stay true.

Neighbours: app routes here.  Source: S3 API reference (GetBucketPolicy, GetBucketTagging, GetObjectTagging, ...).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from proxy.errors import BadRequest
from proxy.operations.verbs import HeadContainer, HeadObject
from proxy.s3.call import Call, Door, answer_xml
from ring.wire.message import Response
from storage.client.errors import ObjectNotFound

_Handler = Callable[[Door, Call], Awaitable[Response]]

# Subresource -> code and message of its absence.
_ABSENT = {
    "cors": ("NoSuchCORSConfiguration", "The CORS configuration does not exist"),
    "encryption": ("ServerSideEncryptionConfigurationNotFoundError", "The server side encryption configuration was not found"),
    "lifecycle": ("NoSuchLifecycleConfiguration", "The lifecycle configuration does not exist"),
    "object-lock": ("ObjectLockConfigurationNotFoundError", "Object Lock configuration does not exist for this bucket"),
    "policy": ("NoSuchBucketPolicy", "The bucket policy does not exist"),
    "policyStatus": ("NoSuchBucketPolicy", "The bucket policy does not exist"),
    "publicAccessBlock": ("NoSuchPublicAccessBlockConfiguration", "The public access block configuration was not found"),
    "replication": ("ReplicationConfigurationNotFoundError", "The replication configuration was not found"),
    "tagging": ("NoSuchTagSet", "The TagSet does not exist"),
    "website": ("NoSuchWebsiteConfiguration", "The specified bucket does not have a website configuration"),
}
# Subresource -> root and content of the document that says so.
_EMPTY = {
    "accelerate": ("AccelerateConfiguration", ""),
    "logging": ("BucketLoggingStatus", ""),
    "notification": ("NotificationConfiguration", ""),
    "ownershipControls": (
        "OwnershipControls",
        "<Rule><ObjectOwnership>BucketOwnerEnforced</ObjectOwnership></Rule>",
    ),
    "requestPayment": ("RequestPaymentConfiguration", "<Payer>BucketOwner</Payer>"),
}
_OBJECT_ABSENT = {
    "legal-hold": ("NoSuchObjectLockConfiguration", "The specified object does not have a ObjectLock configuration"),
    "retention": ("NoSuchObjectLockConfiguration", "The specified object does not have a ObjectLock configuration"),
}
_OBJECT_EMPTY = {"tagging": ("Tagging", "<TagSet></TagSet>")}


def _answer(check: _Handler, absent: tuple[str, str] | None, empty: tuple[str, str]) -> _Handler:
    async def handler(door: Door, call: Call) -> Response:
        await check(door, call)
        if absent is not None:
            raise BadRequest(absent[1], code=absent[0], status=404)
        return answer_xml(*empty)

    return handler


async def _check_bucket(door: Door, call: Call) -> Response:
    await door.pipeline.run(call.access, HeadContainer(call.path), door.books.head_container)
    return Response(204)


async def _check_object(door: Door, call: Call) -> Response:
    try:
        await door.pipeline.run(call.access, HeadObject(call.path), door.objects.head)
    except ObjectNotFound:
        await door.check_bucket(call.path)
        raise
    return Response(204)


BUCKET: dict[str, _Handler] = {
    **{name: _answer(_check_bucket, absent, ("", "")) for name, absent in _ABSENT.items()},
    **{name: _answer(_check_bucket, None, empty) for name, empty in _EMPTY.items()},
}
OBJECT: dict[str, _Handler] = {
    **{name: _answer(_check_object, absent, ("", "")) for name, absent in _OBJECT_ABSENT.items()},
    **{name: _answer(_check_object, None, empty) for name, empty in _OBJECT_EMPTY.items()},
}

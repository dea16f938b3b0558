"""AWS Signature Version 2 in the query (AWSAccessKeyId, Signature, Expires): what boto3 presigns with by default against a custom
endpoint.  In a header it is refused.

Pure.  Neighbours: auth.  Source: "Signing and Authenticating REST Requests (AWS signature version 2)", S3 developer guide.
"""

from __future__ import annotations

import base64
import hmac
from collections.abc import Sequence
from dataclasses import dataclass

from proxy.errors import BadSignature
from ring.wire.message import Headers

# The sub-resources and overrides that are part of what is signed.
_SIGNED_PARAMETERS = frozenset(
    (
        "accelerate", "acl", "analytics", "cors", "defaultObjectAcl", "delete", "inventory", "lifecycle", "location",
        "logging", "metrics", "notification", "object-lock", "partNumber", "policy", "replication", "requestPayment",
        "restore", "select", "select-type", "storageClass", "tagging", "torrent", "uploadId", "uploads", "versionId",
        "versioning", "versions", "website", "response-cache-control", "response-content-disposition",
        "response-content-encoding", "response-content-language", "response-content-type", "response-expires",
    )
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Claim:
    access_key: str
    signature: str
    expires: int  # seconds since 1970


def read_query(pairs: Sequence[tuple[str, str]]) -> Claim:
    """Raises BadSignature."""
    fields = dict(pairs)
    access_key, signature, expires = (fields.get(name, "") for name in ("AWSAccessKeyId", "Signature", "Expires"))
    if not access_key or not signature or not (expires.isascii() and expires.isdigit() and len(expires) < 12):
        raise BadSignature(
            "Query-string authentication requires the Signature, Expires and AWSAccessKeyId parameters", code="AccessDenied"
        )
    return Claim(access_key, signature, int(expires))


def verify(
    claim: Claim, secret: str, method: str, resource: str, pairs: Sequence[tuple[str, str]], headers: Headers, now: float
) -> None:
    """``resource``: the path as received, with "/BUCKET" before it when the bucket is in Host.  Raises BadSignature."""
    if now > claim.expires:
        raise BadSignature("Request has expired", code="AccessDenied")
    amz: dict[str, str] = {}
    for name, value in headers.fields:
        if name.startswith("x-amz-"):
            amz[name] = f"{amz[name]},{value.strip()}" if name in amz else value.strip()
    for name, value in pairs:  # botocore moves signed headers into the query
        if name.lower().startswith("x-amz-"):
            amz.setdefault(name.lower(), value)
    signed = sorted((name, value) for name, value in pairs if name in _SIGNED_PARAMETERS)
    query = "&".join(f"{name}={value}" if value else name for name, value in signed)
    fields = dict(pairs)
    lines = [
        method,
        headers.get("content-md5") or fields.get("content-md5", ""),
        headers.get("content-type") or fields.get("content-type", ""),
        str(claim.expires),
        *(f"{name}:{amz[name]}" for name in sorted(amz)),
        resource + (f"?{query}" if query else ""),
    ]
    text = "\n".join(lines).encode("utf-8", "surrogateescape")
    expected = base64.b64encode(hmac.digest(secret.encode(), text, "sha1"))
    if not hmac.compare_digest(expected, claim.signature.encode("utf-8", "surrogateescape")):
        raise BadSignature(
            "The request signature we calculated does not match the signature you provided. Check your key and signing method."
        )

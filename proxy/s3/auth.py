"""Who signed an S3 request, by whichever scheme, and the body as the signature promises it.

Decides the scheme; sigv4 and sigv2 do the sums.  Neighbours: app, checksums, chunked, identity.client (the keys).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from identity.client.interface import Access, Identity, S3Key
from proxy.errors import BadRequest, BadSignature, LengthRequired, NotSupported
from proxy.s3 import sigv2, sigv4
from proxy.s3.checksums import PREFIX, Check, CheckedBody, parse_value, stated
from proxy.s3.chunked import AwsChunkedBody
from ring.wire.message import Request
from ring.world.interface import Clock
from storage.client.interface import BodySource

_STREAMING = "STREAMING-"
_SIGNED_CHUNKS = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"
_SIGNED_CHUNKS_TRAILER = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER"
_UNSIGNED_TRAILER = "STREAMING-UNSIGNED-PAYLOAD-TRAILER"


@dataclass(frozen=True, slots=True)
class Signed:
    """What is known of the caller.  ``access`` None: nobody signed."""

    access: Access | None
    claim: sigv4.Claim | None = None
    key: bytes = b""

    @property
    def project_id(self) -> str:
        return self.access.project_id if self.access is not None else ""


ANONYMOUS = Signed(None)


class S3Auth:
    def __init__(self, identity: Identity, clock: Clock) -> None:
        self._identity = identity
        self._clock = clock
        self._keys = sigv4.SigningKeys()

    def identify(self, request: Request, pairs: Sequence[tuple[str, str]], host_bucket: str) -> Signed:
        """BadSignature, ClockSkewed, Unauthorized."""
        authorization = request.headers.get("authorization")
        if authorization:
            if not authorization.startswith(sigv4.ALGORITHM):
                raise BadRequest(
                    "The authorization mechanism you have provided is not supported. Please use AWS4-HMAC-SHA256.",
                    code="InvalidRequest",
                )
            return self._verify_v4(sigv4.read_header(request.headers), request, pairs)
        names = {name for name, _ in pairs}
        if "X-Amz-Algorithm" in names or "X-Amz-Signature" in names:
            return self._verify_v4(sigv4.read_query(pairs, request.headers), request, pairs)
        if "AWSAccessKeyId" in names:
            claim = sigv2.read_query(pairs)
            s3_key = self._s3_key(claim.access_key)
            resource = (f"/{host_bucket}" if host_bucket else "") + request.raw_path
            sigv2.verify(claim, s3_key.secret, request.method, resource, pairs, request.headers, self._clock.now())
            return Signed(s3_key.access)
        return ANONYMOUS

    def _verify_v4(self, claim: sigv4.Claim, request: Request, pairs: Sequence[tuple[str, str]]) -> Signed:
        s3_key = self._s3_key(claim.scope.access_key)
        key = self._keys.get(s3_key.secret, claim.scope)
        sigv4.verify(claim, key, request.method, request.raw_path, pairs, request.headers, self._clock.now())
        return Signed(s3_key.access, claim, key)

    def _s3_key(self, access_key: str) -> S3Key:
        found = self._identity.s3_key(access_key)
        if found is None:
            raise BadSignature("The AWS Access Key Id you provided does not exist in our records.", code="InvalidAccessKeyId")
        return found


async def payload(request: Request, signed: Signed) -> BodySource:
    """The body decoded from its coding, which is checked while it is read.  BadRequest, LengthRequired, NotSupported."""
    headers = request.headers
    kind = signed.claim.payload if signed.claim is not None else headers.get("x-amz-content-sha256") or sigv4.UNSIGNED
    checks = [Check(algorithm, parse_value(algorithm, value)) for algorithm, value in stated(headers)]
    body: BodySource
    if kind.startswith(_STREAMING):
        body = _chunked(request, signed, kind, checks)
    else:
        if "content-length" not in headers and "transfer-encoding" not in headers:
            raise LengthRequired("You must provide the Content-Length HTTP header.")
        if sigv4.is_sha256(kind):
            checks.append(Check("sha256", bytes.fromhex(kind), code="XAmzContentSHA256Mismatch"))
        elif kind != sigv4.UNSIGNED:
            raise BadRequest(
                "x-amz-content-sha256 must be UNSIGNED-PAYLOAD, STREAMING-AWS4-HMAC-SHA256-PAYLOAD, or a valid sha256 value.",
                code="InvalidArgument",
            )
        body = CheckedBody(request.body, checks) if checks else request.body
    if body.length == 0:
        await body.read()  # nobody would read an empty body, and then its checks would never be made
    return body


def _chunked(request: Request, signed: Signed, kind: str, checks: Sequence[Check]) -> AwsChunkedBody:
    headers = request.headers
    text = headers.get("x-amz-decoded-content-length")
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise LengthRequired("x-amz-decoded-content-length is missing or not a number")
    trailer = [name.strip().lower() for name in headers.get("x-amz-trailer").split(",") if name.strip()]
    chain = None
    if kind in (_SIGNED_CHUNKS, _SIGNED_CHUNKS_TRAILER):
        if signed.claim is None or signed.claim.presigned:
            raise BadRequest("signed chunks need a signed Authorization header", code="InvalidRequest")
        chain = sigv4.ChunkChain(signed.key, signed.claim)
    elif kind != _UNSIGNED_TRAILER:
        raise NotSupported(f"The payload coding {kind[:60]} is not supported.")
    if trailer and kind == _SIGNED_CHUNKS:
        raise BadRequest("a trailer needs STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER", code="InvalidRequest")
    if sum(name.startswith(PREFIX) for name in trailer) + len(checks) > 1:
        raise BadRequest("Expecting a single x-amz-checksum- header. Multiple checksum Types are not allowed.")
    return AwsChunkedBody(request.body, int(text), chain, trailer=trailer, checks=checks)

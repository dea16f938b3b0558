"""The XML body of a request: read whole, within a bound, with the checks that its signature and headers promise."""

from __future__ import annotations

from proxy.s3.auth import Signed, payload
from proxy.s3.checksums import Check, CheckedBody, content_md5
from ring.wire.message import BodyTooLarge, Request


async def read_document(request: Request, signed: Signed, bytes_max: int) -> bytes:
    """BodyTooLarge, BadChecksum, BadSignature."""
    if request.body.length == 0 and "content-length" not in request.headers:
        return b""
    body = await payload(request, signed)
    md5 = content_md5(request.headers)
    if md5:
        body = CheckedBody(body, [Check("md5", bytes.fromhex(md5))])
    if body.length is not None and body.length > bytes_max:
        raise BodyTooLarge(f"the document is longer than {bytes_max} bytes")
    data = bytearray()
    while piece := await body.read(bytes_max + 1 - len(data)):
        data += piece
        if len(data) > bytes_max:
            raise BodyTooLarge(f"the document is longer than {bytes_max} bytes")
    return bytes(data)

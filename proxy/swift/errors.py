"""The error tree as Swift answers it: one table to a status, and the HTML that goes with each (swob's wording).

What explains itself (bad names, metadata, queries) is answered with its own sentence as plain text, as Swift does.
"""

from __future__ import annotations

from html import escape

from identity.client.interface import Forbidden, Unauthorized
from proxy import errors
from ring.errors import BadInput, Conflict, NotFound, RingfortError, Unavailable
from ring.wire.message import BodyBroken, BodyTooLarge, Headers, Response
from storage.client.errors import AccountGone, BadDigest, EntityTooLarge, NoRoom, PreconditionFailed

# The first kind that fits decides.
STATUSES: tuple[tuple[type[RingfortError], int], ...] = (
    (Unauthorized, 401),
    (Forbidden, 403),
    (NotFound, 404),
    (errors.LengthRequired, 411),
    (PreconditionFailed, 412),
    (EntityTooLarge, 413),
    (BodyTooLarge, 413),
    (errors.RangeNotSatisfiable, 416),
    (BadDigest, 422),
    (BodyBroken, 499),
    (Conflict, 409),
    (BadInput, 400),
    (errors.NotSupported, 501),
    (NoRoom, 507),
    (Unavailable, 503),
)
_SPOKEN = (errors.BadRequest, errors.NameTooLong, errors.MetadataTooLarge, errors.NotSupported)
_REASONS = {
    400: ("Bad Request", "The server could not comply with the request since it is either malformed or otherwise incorrect."),
    401: ("Unauthorized", "This server could not verify that you are authorized to access the document you requested."),
    403: ("Forbidden", "Access was denied to this resource."),
    404: ("Not Found", "The resource could not be found."),
    405: ("Method Not Allowed", "The method is not allowed for this resource."),
    409: ("Conflict", "There was a conflict when trying to complete your request."),
    410: ("Gone", "This resource is no longer available."),
    411: ("Length Required", "Content-Length header required."),
    412: ("Precondition Failed", "A precondition for this request was not met."),
    413: ("Request Entity Too Large", "The body of your request was too large for this server."),
    416: ("Requested Range Not Satisfiable", "The Range requested is not available."),
    422: ("Unprocessable Entity", "Unable to process the contained instructions"),
    499: ("Client Disconnect", "The client was disconnected during request."),
    501: ("Not Implemented", "The requested method is not implemented by this server."),
    503: ("Service Unavailable", "The server is currently unavailable. Please try again at a later time."),
    507: ("Insufficient Storage", "There was not enough space to save the resource."),
}


def status_of(error: RingfortError) -> int | None:
    if isinstance(error, errors.BadRequest):
        return error.status
    return next((status for kind, status in STATUSES if isinstance(error, kind)), None)


def answer(error: RingfortError, account: str = "") -> Response:
    """Raises ``error`` again when it is in no row of the table: then it is a bug."""
    status = status_of(error)
    if status is None:
        raise error
    if isinstance(error, _SPOKEN):
        return Response(status, Headers([("content-type", "text/plain; charset=UTF-8")]), error.message.encode())
    response = page(status)
    if status == 401:
        realm = account if account.isascii() and account.isprintable() and '"' not in account else "unknown"
        response.headers.add("www-authenticate", f'Swift realm="{realm or "unknown"}"')
    elif isinstance(error, errors.RangeNotSatisfiable):
        response.headers.add("content-range", f"bytes */{error.meta.size}")
        response.headers.add("etag", error.meta.etag)
        response.headers.add("accept-ranges", "bytes")
    return response


def gone(error: AccountGone, method: str, *, of_account: bool) -> Response:
    """An account was deleted and is being reaped: Swift's proxy tells only those who ask for the account itself."""
    if of_account and method == "PUT":
        return Response(403, Headers([("content-type", "text/plain; charset=UTF-8")]), b"Recently deleted")
    return page(410 if of_account and method in ("GET", "HEAD") else 404)


def reason_of(status: int) -> str:
    return _REASONS[status][0] if status in _REASONS else ""


def page(status: int) -> Response:
    title, text = _REASONS[status]
    body = f"<html><h1>{escape(title)}</h1><p>{escape(text)}</p></html>".encode()
    return Response(status, Headers([("content-type", "text/html; charset=UTF-8")]), body)

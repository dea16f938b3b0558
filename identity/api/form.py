"""The form of the Identity API's messages: JSON in, JSON out, errors as {"error": {code, message, title}}."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

import msgspec

from identity.errors import BadInput, Conflict, Forbidden, NotFound, Unauthorized
from identity.login import Login, Session
from ring.errors import RingfortError, Unavailable
from ring.wire.message import BodyTooLarge, Handler, Headers, Request, Response

BODY_BYTES_MAX = 1 << 17
_STATUS: tuple[tuple[type[RingfortError], int], ...] = (
    (BodyTooLarge, 413),
    (Unauthorized, 401),
    (Forbidden, 403),
    (NotFound, 404),
    (Conflict, 409),
    (BadInput, 400),
    (Unavailable, 503),
)


async def json_object(request: Request) -> dict[str, Any]:
    """The body, which must be a JSON object."""
    data = await request.body.read_all(BODY_BYTES_MAX)
    try:
        body = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadInput(f"The request body is not JSON: {error}") from error
    if not isinstance(body, dict):
        raise BadInput("The request body must be a JSON object.")
    return body


def answer(status: int, body: dict[str, Any]) -> Response:
    return Response(status, Headers([("Content-Type", "application/json")]), msgspec.json.encode(body))


def session_of(login: Login, request: Request) -> Session:
    """Who is calling.  Unauthorized."""
    return login.open(request.headers.get("x-auth-token"))


def worded(handler: Handler, auth_url: str) -> Handler:
    """``handler`` with the errors of the tree turned into the API's answers."""

    async def call(request: Request) -> Response:
        try:
            return await handler(request)
        except RingfortError as error:
            status = next((code for kind, code in _STATUS if isinstance(error, kind)), None)
            if status is None:
                raise
            title = HTTPStatus(status).phrase
            response = answer(status, {"error": {"code": status, "message": error.message, "title": title}})
            if status == 401:
                response.headers.add("WWW-Authenticate", f'Keystone uri="{auth_url}"')
            return response

    return call

"""What the JSON APIs share: a JSON object in, a JSON object out, and the error tree worded as an API's own errors.

Each API has a Wording: which error becomes which status, and how a status and a message become a body.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from ring.errors import BadInput, Conflict, NotFound, RingfortError, Unavailable
from ring.wire.message import BodyTooLarge, Handler, Headers, Request, Response

BODY_BYTES_MAX = 1 << 20
RING_STATUSES: tuple[tuple[type[RingfortError], int], ...] = (
    (BodyTooLarge, 413),
    (NotFound, 404),
    (Conflict, 409),
    (BadInput, 400),
    (Unavailable, 503),
)
# Nova's and Cinder's names of errors (API guide, "Faults").
FAULTS = {
    400: "badRequest",
    401: "unauthorized",
    403: "forbidden",
    404: "itemNotFound",
    405: "badMethod",
    409: "conflictingRequest",
    413: "overLimit",
    503: "serviceUnavailable",
}


@dataclass(frozen=True, slots=True)
class Wording:
    """``statuses``: the first kind that fits decides.  An error that none fits is a bug and goes on up."""

    statuses: tuple[tuple[type[RingfortError], int], ...]
    write: Callable[[int, str], Response]

    def around(self, handler: Handler) -> Handler:
        async def call(request: Request) -> Response:
            try:
                return await handler(request)
            except RingfortError as error:
                status = next((code for kind, code in self.statuses if isinstance(error, kind)), None)
                if status is None:
                    raise
                return self.write(status, error.message)

        return call


async def json_object(request: Request, *, max_bytes: int = BODY_BYTES_MAX) -> dict[str, Any]:
    """The body, which must be a JSON object.  BadInput."""
    data = await request.body.read_all(max_bytes)
    try:
        body = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadInput(f"The request body is not JSON: {error}") from error
    if not isinstance(body, dict):
        raise BadInput("The request body must be a JSON object.")
    return body


def member(body: Mapping[str, Any], name: str) -> dict[str, Any]:
    """An object inside of an object.  BadInput."""
    value = body.get(name)
    if not isinstance(value, dict):
        raise BadInput(f"Missing required element '{name}' in request body.")
    return value


def text(body: Mapping[str, Any], name: str, default: str | None = None, *, characters_max: int = 255) -> str:
    """A string; null and absent give ``default``, or BadInput without one."""
    value = body.get(name)
    if value is None and default is not None:
        return default
    if not isinstance(value, str) or len(value) > characters_max:
        raise BadInput(f"Invalid input for field/attribute {name}: a string of at most {characters_max} characters.")
    return value


def whole(value: object, name: str) -> int:
    """A whole number of at most 18 digits, as a number or as text.  BadInput."""
    if isinstance(value, str) and value.isascii() and value.removeprefix("-").isdigit() and len(value) <= 18:
        return int(value)
    if not isinstance(value, int) or isinstance(value, bool) or abs(value) >= 10**18:
        raise BadInput(f"Invalid input for field/attribute {name}: a whole number.")
    return value


def answer(status: int, body: Mapping[str, Any]) -> Response:
    return Response(status, Headers([("Content-Type", "application/json")]), msgspec.json.encode(body))


def fault(status: int, message: str) -> Response:
    """An error as Nova and Cinder word it."""
    return answer(status, {FAULTS.get(status, "computeFault"): {"code": status, "message": message}})

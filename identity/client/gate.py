"""The gate of the control APIs: a valid X-Auth-Token, or the 401 that the OpenStack services share (keystonemiddleware's)."""

from __future__ import annotations

from collections.abc import Callable

from identity.client.interface import Access, Forbidden, Identity, Unauthorized
from ring.errors import RingfortError
from ring.wire.message import Handler, Headers, Request, Response

IDENTITY_STATUSES: tuple[tuple[type[RingfortError], int], ...] = ((Unauthorized, 401), (Forbidden, 403))


def authenticated(identity: Identity, handler: Handler, *, auth_url: str, open_to_all: Callable[[Request], bool]) -> Handler:
    """``handler`` behind a token check: request.context is the caller's Access.  Requests for which ``open_to_all`` holds (version
    documents) pass without one; they have an Access only if they sent a valid token."""

    async def gate(request: Request) -> Response:
        token = request.headers.get("x-auth-token")
        try:
            request.context = identity.authenticate(token)
        except Unauthorized as error:
            if not open_to_all(request):
                fields = [("Content-Type", "application/json"), ("WWW-Authenticate", f'Keystone uri="{auth_url}"')]
                body = b'{"error": {"code": 401, "title": "Unauthorized", "message": "%s"}}' % error.message.encode()
                return Response(401, Headers(fields), body)
        return await handler(request)

    return gate


def caller(request: Request) -> Access:
    """Who sent a request that passed the gate."""
    if not isinstance(request.context, Access):
        raise Unauthorized("The request you have made requires authentication.")
    return request.context

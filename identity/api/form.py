"""The form of the Identity API's errors: {"error": {code, message, title}}; and who is calling."""

from __future__ import annotations

from http import HTTPStatus

from identity.client.gate import IDENTITY_STATUSES
from identity.login import Login, Session
from ring.wire.jsonapi import RING_STATUSES, Wording, answer
from ring.wire.message import Request, Response


def session_of(login: Login, request: Request) -> Session:
    """Who is calling.  Unauthorized."""
    return login.open(request.headers.get("x-auth-token"))


def wording(auth_url: str) -> Wording:
    def write(status: int, message: str) -> Response:
        response = answer(status, {"error": {"code": status, "message": message, "title": HTTPStatus(status).phrase}})
        if status == 401:
            response.headers.add("WWW-Authenticate", f'Keystone uri="{auth_url}"')
        return response

    return Wording((*IDENTITY_STATUSES, *RING_STATUSES), write)

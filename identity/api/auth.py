"""Tokens over HTTP (Identity API v3, "Authentication and token management")."""

from __future__ import annotations

from typing import Any

from identity.api import render
from identity.api.form import session_of
from identity.catalog import catalog
from identity.errors import Forbidden, NotFound, Unauthorized
from identity.login import Login, Session
from identity.records import Domain, Project
from identity.store import IdentityStore
from ring.wire.jsonapi import answer, json_object
from ring.wire.message import Headers, Request, Response


class AuthApi:
    def __init__(self, store: IdentityStore, login: Login, base: str) -> None:
        self._store = store
        self._login = login
        self._base = base

    async def issue(self, request: Request) -> Response:
        body = await json_object(request)
        token, session = await self._login.issue(body.get("auth"))
        with_catalog = "nocatalog" not in request.query_string
        response = answer(201, render.token(self._store, session, with_catalog=with_catalog))
        response.headers.add("X-Subject-Token", token)
        response.headers.add("Vary", "X-Auth-Token")
        return response

    async def validate(self, request: Request) -> Response:
        token, session = self._subject(request)
        with_catalog = "nocatalog" not in request.query_string
        response = answer(200, render.token(self._store, session, with_catalog=with_catalog))
        response.headers.add("X-Subject-Token", token)
        return response

    async def revoke(self, request: Request) -> Response:
        _, session = self._subject(request)
        await self._login.revoke(session)
        return Response(204, Headers())

    async def catalog(self, request: Request) -> Response:
        session = session_of(self._login, request)
        found = catalog(self._store, session.project.id if session.project else "")
        return answer(200, {"catalog": found, "links": {"self": f"{self._base}/v3/auth/catalog"}})

    async def projects(self, request: Request) -> Response:
        """The projects the caller has a role on."""
        session = session_of(self._login, request)
        ids = {grant.target_id for grant in self._store.grants(scope="project", user_id=session.user.id)}
        found = [p for p in self._store.all(Project) if p.id in ids and p.enabled]
        return self._list("projects", [render.resource(p, self._base, "projects") for p in found], "auth/projects")

    async def domains(self, request: Request) -> Response:
        session = session_of(self._login, request)
        ids = {grant.target_id for grant in self._store.grants(scope="domain", user_id=session.user.id)}
        found = [d for d in self._store.all(Domain) if d.id in ids and d.enabled]
        return self._list("domains", [render.resource(d, self._base, "domains") for d in found], "auth/domains")

    def _list(self, name: str, items: list[dict[str, Any]], path: str) -> Response:
        return answer(200, {name: items, "links": {"self": f"{self._base}/v3/{path}", "previous": None, "next": None}})

    def _subject(self, request: Request) -> tuple[str, Session]:
        """The token asked about; one's own always, another's as an admin.  404 when it is not valid."""
        caller = session_of(self._login, request)
        token = request.headers.get("x-subject-token")
        try:
            subject = self._login.open(token)
        except Unauthorized as error:
            raise NotFound("Failed to validate token") from error
        own = subject.user.id == caller.user.id
        if not own and not {"admin", "service"} & {role.name for role in caller.roles}:
            raise Forbidden("You are not authorized to perform the requested action: identity:validate_token.")
        return token, subject

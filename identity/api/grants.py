"""Role assignments and EC2 credentials over HTTP (Identity API v3; OS-EC2 extension).

Granting and listing assignments needs the admin role; credentials are one's own, or any as an admin.
"""

from __future__ import annotations

from typing import Any

from identity.api.form import session_of
from identity.bootstrap import new_access_key
from identity.client.local import SECRET_PURPOSE
from identity.client.sealing import Sealer
from identity.errors import BadInput, Forbidden, NotFound
from identity.login import Login, Session
from identity.records import Credential, Domain, Grant, Project, Role, User
from identity.store import IdentityStore
from ring.wire.jsonapi import answer, json_object
from ring.wire.message import Headers, Request, Response
from ring.wire.query import Query
from ring.world.interface import World


class GrantApi:
    """{scope} is "projects" or "domains" in the path: /v3/{scope}/{id}/users/{user}/roles[/{role}]."""

    def __init__(self, store: IdentityStore, login: Login, base: str) -> None:
        self._store = store
        self._login = login
        self._base = base

    async def put(self, request: Request) -> Response:
        await self._store.grant(self._grant(request))
        return Response(204, Headers())

    async def check(self, request: Request) -> Response:
        grant = self._grant(request)
        if not any(role.id == grant.role_id for role in self._store.roles_of(grant.user_id, grant.scope, grant.target_id)):
            raise NotFound("Could not find role assignment.")
        return Response(204, Headers())

    async def delete(self, request: Request) -> Response:
        await self._store.ungrant(self._grant(request))
        return Response(204, Headers())

    async def index(self, request: Request) -> Response:
        session = session_of(self._login, request)
        if request.params["user"] != session.user.id:
            _need_admin(session)
        scope, target = self._target(request)
        roles = self._store.roles_of(request.params["user"], scope, target)
        return answer(200, {"roles": [{"id": role.id, "name": role.name} for role in roles], "links": {}})

    async def assignments(self, request: Request) -> Response:
        """GET /v3/role_assignments with user.id, scope.project.id, role.id, include_names."""
        session = session_of(self._login, request)
        wanted = dict(Query.parse(request.query_string))
        if wanted.get("user.id") != session.user.id:
            _need_admin(session)
        names = "include_names" in wanted and wanted["include_names"].lower() not in ("false", "0")
        found = []
        for grant in self._store.grants(user_id=wanted.get("user.id", "")):
            if wanted.get("role.id", grant.role_id) != grant.role_id:
                continue
            if wanted.get(f"scope.{grant.scope}.id", grant.target_id) != grant.target_id:
                continue
            if "scope.project.id" in wanted and grant.scope != "project":
                continue
            found.append(self._assignment(grant, names))
        return answer(200, {"role_assignments": found, "links": {"self": f"{self._base}/v3/role_assignments"}})

    def _assignment(self, grant: Grant, names: bool) -> dict[str, Any]:
        role: dict[str, Any] = {"id": grant.role_id}
        user: dict[str, Any] = {"id": grant.user_id}
        target: dict[str, Any] = {"id": grant.target_id}
        if names:
            role["name"] = self._store.get(Role, grant.role_id).name
            record = self._store.get(User, grant.user_id)
            user |= {"name": record.name, "domain": self._domain(record.domain_id)}
            if grant.scope == "project":
                project = self._store.get(Project, grant.target_id)
                target |= {"name": project.name, "domain": self._domain(project.domain_id)}
            else:
                target["name"] = self._store.get(Domain, grant.target_id).name
        return {"role": role, "user": user, "scope": {grant.scope: target}, "links": {}}

    def _domain(self, domain_id: str) -> dict[str, str]:
        return {"id": domain_id, "name": self._store.get(Domain, domain_id).name}

    def _grant(self, request: Request) -> Grant:
        session = session_of(self._login, request)
        _need_admin(session)
        scope, target = self._target(request)
        self._store.get(User, request.params["user"])
        self._store.get(Role, request.params["role"])
        return Grant(scope=scope, target_id=target, user_id=request.params["user"], role_id=request.params["role"])

    def _target(self, request: Request) -> tuple[str, str]:
        if request.raw_path.split("/")[2] == "domains":
            return "domain", self._store.get(Domain, request.params["id"]).id
        return "project", self._store.get(Project, request.params["id"]).id


class CredentialApi:
    def __init__(self, world: World, store: IdentityStore, login: Login, sealer: Sealer, base: str) -> None:
        self._world = world
        self._store = store
        self._login = login
        self._sealer = sealer
        self._base = base

    async def create(self, request: Request) -> Response:
        user = self._user(request)
        body = await json_object(request)
        project_id = body.get("tenant_id")
        if not isinstance(project_id, str):
            raise BadInput("'tenant_id' is a required property")
        project = self._store.get(Project, project_id)
        if not self._store.roles_of(user.id, "project", project.id):
            raise Forbidden("The user has no role on that project.")
        access, secret = new_access_key(self._world)
        credential = Credential(
            access=access,
            sealed_secret=self._sealer.seal(SECRET_PURPOSE, secret.encode()),
            user_id=user.id,
            project_id=project.id,
        )
        await self._store.add_credential(credential)
        return answer(201, {"credential": self._render(credential)})

    async def index(self, request: Request) -> Response:
        found = [self._render(c) for c in self._store.credentials_of(self._user(request).id)]
        return answer(200, {"credentials": found, "links": {}})

    async def show(self, request: Request) -> Response:
        return answer(200, {"credential": self._render(self._credential(request))})

    async def delete(self, request: Request) -> Response:
        await self._store.delete_credential(self._credential(request).access)
        return Response(204, Headers())

    def _user(self, request: Request) -> User:
        session = session_of(self._login, request)
        if request.params["id"] != session.user.id:
            _need_admin(session)
        return self._store.get(User, request.params["id"])

    def _credential(self, request: Request) -> Credential:
        user = self._user(request)
        credential = self._store.credential(request.params["access"])
        if credential is None or credential.user_id != user.id:
            raise NotFound(f"Could not find credential: {request.params['access']}.")
        return credential

    def _render(self, credential: Credential) -> dict[str, Any]:
        return {
            "access": credential.access,
            "secret": self._sealer.open(SECRET_PURPOSE, credential.sealed_secret).decode(),
            "user_id": credential.user_id,
            "tenant_id": credential.project_id,
            "trust_id": None,
            "links": {"self": f"{self._base}/v3/users/{credential.user_id}/credentials/OS-EC2/{credential.access}"},
        }


def _need_admin(session: Session) -> None:
    if not any(role.name == "admin" for role in session.roles):
        raise Forbidden("You are not authorized to perform the requested action.")

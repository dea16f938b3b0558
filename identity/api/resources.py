"""Domains, projects, users, roles, regions, services, endpoints over HTTP: one shape for all (Identity API v3).

Each kind is a ``Kind``: which fields a client may set, which a list may be filtered by.  Changing anything needs the admin role; a
user may read itself and the projects it is in, and change its own password.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from identity import passwords
from identity.api import render
from identity.api.form import session_of
from identity.errors import BadInput, Forbidden
from identity.login import Login, Session
from identity.records import COLLECTIONS, Domain, Endpoint, Project, Record, Region, Role, Service, User
from identity.store import IdentityStore, vars_id
from ring.wire.jsonapi import answer, json_object
from ring.wire.message import Headers, Request, Response
from ring.wire.query import Query
from ring.world.interface import World

NAME_CHARACTERS_MAX = 255


@dataclass(frozen=True, slots=True)
class Kind:
    record: type[Record]
    word: str  # the key of one in a body
    settable: Mapping[str, type]  # field -> type of a client's value
    required: tuple[str, ...]
    filters: tuple[str, ...]

    @property
    def collection(self) -> str:
        return COLLECTIONS[self.record]


_COMMON = {"name": str, "description": str, "enabled": bool}
KINDS = (
    Kind(Domain, "domain", _COMMON, ("name",), ("name", "enabled")),
    Kind(Project, "project", {**_COMMON, "domain_id": str}, ("name",), ("name", "domain_id", "enabled")),
    Kind(
        User,
        "user",
        {**_COMMON, "domain_id": str, "email": str, "password": str, "default_project_id": str},
        ("name",),
        ("name", "domain_id", "enabled"),
    ),
    Kind(Role, "role", {"name": str, "description": str}, ("name",), ("name",)),
    Kind(Region, "region", {"id": str, "description": str, "parent_region_id": str}, (), ("parent_region_id",)),
    Kind(Service, "service", {**_COMMON, "type": str}, ("type",), ("name", "type")),
    Kind(
        Endpoint,
        "endpoint",
        {"service_id": str, "interface": str, "url": str, "region_id": str, "region": str, "enabled": bool, "name": str},
        ("service_id", "interface", "url"),
        ("service_id", "interface", "region_id"),
    ),
)
# Fields that the API has and this cloud answers by their defaults: taken and not kept, as Keystone takes extra attributes.
_TAKEN = frozenset({"options", "tags", "parent_id", "is_domain", "links", "extra"})


class ResourceApi:
    def __init__(self, world: World, store: IdentityStore, login: Login, base: str, kind: Kind) -> None:
        self._world = world
        self._store = store
        self._login = login
        self._base = base
        self._kind = kind

    async def index(self, request: Request) -> Response:
        session = session_of(self._login, request)
        if self._kind.record is not Project:
            self._need_admin(session, "list")
        wanted = {name: value for name, value in Query.parse(request.query_string) if name in self._kind.filters}
        found: list[Any] = list(self._store.all(self._kind.record))
        if not _is_admin(session):
            mine = {grant.target_id for grant in self._store.grants(scope="project", user_id=session.user.id)}
            found = [record for record in found if vars_id(record) in mine]
        items = [
            render.resource(record, self._base, self._kind.collection)
            for record in found
            if all(_same(getattr(record, name), value) for name, value in wanted.items())
        ]
        links = {"self": f"{self._base}/v3/{self._kind.collection}", "previous": None, "next": None}
        return answer(200, {self._kind.collection: items, "links": links})

    async def show(self, request: Request) -> Response:
        session = session_of(self._login, request)
        record_id = request.params["id"]
        own = record_id in (session.user.id, session.project.id if session.project else "")
        if not own and self._kind.record not in (Role, Region, Domain):
            self._need_admin(session, "get")
        record = self._store.get(self._kind.record, record_id)
        return answer(200, {self._kind.word: render.resource(record, self._base, self._kind.collection)})

    async def create(self, request: Request) -> Response:
        session = session_of(self._login, request)
        self._need_admin(session, "create")
        given = await self._given(request)
        for name in self._kind.required:
            if not given.get(name):
                raise BadInput(f"'{name}' is a required property")
        record_id = given.pop("id", "") or self._world.entropy.uuid().hex
        if self._kind.record in (Project, User):
            given.setdefault("domain_id", session.user.domain_id)
        await self._check(given)
        if self._kind.record is Service:
            given.setdefault("name", given["type"])
        record = self._kind.record(id=record_id, **given)
        await self._store.create(record)
        return answer(201, {self._kind.word: render.resource(record, self._base, self._kind.collection)})

    async def update(self, request: Request) -> Response:
        session = session_of(self._login, request)
        self._need_admin(session, "update")
        record = self._store.get(self._kind.record, request.params["id"])
        given = await self._given(request)
        if given.pop("id", vars_id(record)) != vars_id(record):
            raise BadInput("Cannot change the id.")
        if given.get("domain_id", getattr(record, "domain_id", None)) != getattr(record, "domain_id", None):
            raise BadInput("Cannot change Domain ID")
        await self._check(given)
        record = await self._store.update(record, **given)
        return answer(200, {self._kind.word: render.resource(record, self._base, self._kind.collection)})

    async def delete(self, request: Request) -> Response:
        session = session_of(self._login, request)
        self._need_admin(session, "delete")
        record = self._store.get(self._kind.record, request.params["id"])
        if isinstance(record, Domain) and record.enabled:
            raise Forbidden("Cannot delete a domain that is enabled, please disable it first.")
        await self._store.delete(record)
        return Response(204, Headers())

    async def change_password(self, request: Request) -> Response:
        """POST /v3/users/{id}/password: one's own, the old one known."""
        body = (await json_object(request)).get("user")
        if not isinstance(body, dict) or not all(isinstance(body.get(k), str) for k in ("password", "original_password")):
            raise BadInput("'password' and 'original_password' are required properties")
        user = self._store.get(User, request.params["id"])
        auth = {
            "identity": {
                "methods": ["password"],
                "password": {"user": {"id": user.id, "password": body["original_password"]}},
            },
            "scope": {"unscoped": {}},
        }
        await self._login.issue(auth)
        given = {"password": body["password"]}
        await self._check(given)
        await self._store.update(user, **given)
        return Response(204, Headers())

    async def _given(self, request: Request) -> dict[str, Any]:
        """The fields a client sent, checked for type; nulls count as not sent."""
        body = (await json_object(request)).get(self._kind.word)
        if not isinstance(body, dict):
            raise BadInput(f"'{self._kind.word}' is a required property")
        given: dict[str, Any] = {}
        for name, value in body.items():
            if name in _TAKEN or value is None:
                continue
            kind = self._kind.settable.get(name)
            if kind is None:
                raise BadInput(f"Additional properties are not allowed ('{name[:64]}' was unexpected)")
            if not isinstance(value, kind):
                raise BadInput(f"Invalid input for field '{name}': {value!r:.64} is not of type '{kind.__name__}'")
            given[name] = value
        if self._kind.record is Endpoint:
            given.pop("name", None)
            region = given.pop("region", None)
            if region is not None:
                given.setdefault("region_id", region)
        return given

    async def _check(self, given: dict[str, Any]) -> None:
        """What the fields refer to must be there; a password is replaced by its hash."""
        name = given.get("name")
        if name is not None and (not name.strip() or len(name) > NAME_CHARACTERS_MAX):
            raise BadInput(f"Invalid input for field 'name': 1 to {NAME_CHARACTERS_MAX} characters")
        if "domain_id" in given:
            self._store.get(Domain, given["domain_id"])
        if given.get("default_project_id"):
            self._store.get(Project, given["default_project_id"])
        if self._kind.record is Endpoint:
            if "service_id" in given:
                self._store.get(Service, given["service_id"])
            if given.get("interface", "public") not in ("public", "internal", "admin"):
                raise BadInput("Invalid input for field 'interface': public, internal or admin")
            if given.setdefault("region_id", "RegionOne"):
                self._store.get(Region, given["region_id"])
        if "password" in given:
            password = given["password"]
            if not password or len(password.encode("utf-8", "surrogatepass")) > passwords.PASSWORD_BYTES_MAX:
                raise BadInput(f"Invalid input for field 'password': 1 to {passwords.PASSWORD_BYTES_MAX} bytes")
            salt = self._world.entropy.token(16)
            given["password"] = await self._world.offload.run(passwords.encode, password, salt)
            given["password_changed"] = self._world.clock.now()

    def _need_admin(self, session: Session, action: str) -> None:
        if not _is_admin(session):
            raise Forbidden(f"You are not authorized to perform the requested action: identity:{action}_{self._kind.word}.")


def _is_admin(session: Session) -> bool:
    return any(role.name == "admin" for role in session.roles)


def _same(value: object, wanted: str) -> bool:
    if isinstance(value, bool):
        return value == (wanted.lower() not in ("false", "0"))
    return value == wanted

"""The first state of a new cloud, and the catalog made true at every start (ports and addresses may have changed).

Idempotent: what exists is left alone, except the endpoints of the services named here.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass

from identity import passwords
from identity.client.local import SECRET_PURPOSE
from identity.client.sealing import Sealer
from identity.login import Login
from identity.records import Credential, Domain, Endpoint, Grant, Project, Region, Role, Service, User
from identity.store import IdentityStore
from ring.world.interface import World

ROLES = ("admin", "member", "reader", "service")
REGION = "RegionOne"


@dataclass(frozen=True, slots=True)
class ServiceEntry:
    type: str
    name: str
    url: str  # may hold %(project_id)s
    description: str


@dataclass(frozen=True, slots=True)
class FirstUser:
    """The administrator of a new cloud, and the S3 key of its project."""

    user: str
    password: str
    project: str
    access_key: str
    secret_key: str


def new_access_key(world: World) -> tuple[str, str]:
    """An S3 access key and secret of AWS's lengths: 20 and 40 characters."""
    access = base64.b32encode(world.entropy.token(13)).decode()[:20]
    secret = base64.b64encode(world.entropy.token(30)).decode().replace("+", "x").replace("/", "y")
    return access, secret


async def bootstrap(
    world: World,
    store: IdentityStore,
    login: Login,
    sealer: Sealer,
    *,
    first: FirstUser,
    services: Mapping[str, ServiceEntry],
) -> None:
    """``services`` by the id they are to have."""
    await _first_state(world, store, login, sealer, first)
    if store.find(Region, REGION) is None:
        await store.create(Region(id=REGION))
    for service_id, entry in services.items():
        service = store.find(Service, service_id)
        if service is None:
            await store.create(Service(id=service_id, name=entry.name, type=entry.type, description=entry.description))
        for interface in ("public", "internal", "admin"):
            endpoint_id = f"{service_id[-24:]}{interface:0<8}"
            endpoint = store.find(Endpoint, endpoint_id)
            if endpoint is None:
                await store.create(
                    Endpoint(id=endpoint_id, service_id=service_id, interface=interface, url=entry.url, region_id=REGION)
                )
            elif endpoint.url != entry.url:
                await store.update(endpoint, url=entry.url)


async def _first_state(world: World, store: IdentityStore, login: Login, sealer: Sealer, first: FirstUser) -> None:
    if not store.token_keys():
        await login.rotate()
    if store.find(Domain, "default") is None:
        await store.create(Domain(id="default", name="Default", description="The default domain"))
    for name in ROLES:
        if store.by_name(Role, name) is None:
            await store.create(Role(id=world.entropy.uuid().hex, name=name))
    project = store.by_name(Project, first.project, "default")
    if project is None:
        project = Project(id=world.entropy.uuid().hex, name=first.project, domain_id="default")
        await store.create(project)
    user = store.by_name(User, first.user, "default")
    if user is None:
        encoded = await world.offload.run(passwords.encode, first.password, world.entropy.token(16))
        user = User(
            id=world.entropy.uuid().hex,
            name=first.user,
            domain_id="default",
            password=encoded,
            default_project_id=project.id,
        )
        await store.create(user)
    held = {role.name for role in store.roles_of(user.id, "project", project.id)}
    for name in ("admin", "member"):
        role = store.by_name(Role, name)
        if name not in held and role is not None:
            await store.grant(Grant(scope="project", target_id=project.id, user_id=user.id, role_id=role.id))
    if store.credential(first.access_key) is None:
        sealed = sealer.seal(SECRET_PURPOSE, first.secret_key.encode())
        await store.add_credential(
            Credential(access=first.access_key, sealed_secret=sealed, user_id=user.id, project_id=project.id)
        )

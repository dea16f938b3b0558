"""Identity as its clients meet it: conversations with the API, and what they mean for the other rooms."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest
import trio

from identity.bootstrap import FirstUser, ServiceEntry, bootstrap
from identity.client.gate import authenticated, caller
from identity.client.interface import Unauthorized
from identity.server import IdentityRoom, start_identity
from ring.kv.memory import MemoryKV
from ring.wire.message import BytesBody, Headers, Request, Response
from ring.world.sim import SimWorld

FIRST = FirstUser("admin", "secret", "admin", "ACCESS", "S3SECRET")
SERVICES = {"s" * 32: ServiceEntry("object-store", "swift", "http://c/v1/AUTH_%(project_id)s", "Objects")}


@dataclass(slots=True)
class Cloud:
    world: SimWorld
    room: IdentityRoom
    token: str = ""

    async def ask(self, method: str, path: str, body: Any = None, *, token: str | None = None, subject: str = "") -> Response:
        headers = Headers([("x-auth-token", self.token if token is None else token)])
        if subject:
            headers.add("x-subject-token", subject)
        data = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        return await self.room.api(Request(method, path, headers, BytesBody(data)))

    async def get(self, method: str, path: str, body: Any = None, *, expect: int = 200, token: str | None = None) -> Any:
        response = await self.ask(method, path, body, token=token)
        assert response.status == expect, response.body
        assert isinstance(response.body, bytes)
        return json.loads(response.body) if response.body else None

    async def login(self, user: str, password: str, project: str | None = "admin") -> Response:
        return await self.ask("POST", "/v3/auth/tokens", {"auth": auth(user, password, project)}, token="")


def auth(user: str, password: str, project: str | None) -> dict[str, Any]:
    named = {"name": user, "domain": {"name": "Default"}, "password": password}
    body: dict[str, Any] = {"identity": {"methods": ["password"], "password": {"user": named}}}
    if project is not None:
        body["scope"] = {"project": {"name": project, "domain": {"id": "default"}}}
    return body


@pytest.fixture
async def cloud(autojump_clock: trio.testing.MockClock) -> AsyncIterator[Cloud]:
    world = SimWorld(1)
    async with trio.open_nursery() as nursery:
        room = await start_identity(nursery, world, MemoryKV(), root_key=bytes(32), public_url="http://c/identity")
        for _ in range(2):  # the second time changes nothing
            await bootstrap(world, room.store, room.login, room.sealer, first=FIRST, services=SERVICES)
        cloud = Cloud(world, room)
        cloud.token = (await cloud.login("admin", "secret")).headers.get("x-subject-token")
        yield cloud
        nursery.cancel_scope.cancel()


async def test_a_password_becomes_a_token_with_a_catalog(cloud: Cloud) -> None:
    response = await cloud.login("admin", "secret")
    assert response.status == 201 and isinstance(response.body, bytes)
    token = json.loads(response.body)["token"]
    assert (token["user"]["name"], token["project"]["name"], token["methods"]) == ("admin", "admin", ["password"])
    assert {role["name"] for role in token["roles"]} == {"admin", "member"}
    endpoint = token["catalog"][0]["endpoints"][0]
    assert endpoint["url"] == f"http://c/v1/AUTH_{token['project']['id']}"
    assert (endpoint["interface"], endpoint["region"]) == ("public", "RegionOne")
    access = cloud.room.client.authenticate(response.headers.get("x-subject-token"))
    assert access.is_admin and access.account == f"AUTH_{token['project']['id']}"


@pytest.mark.parametrize(
    "user, password, project",
    [("admin", "wrong", "admin"), ("nobody", "secret", "admin"), ("admin", "secret", "none"), ("admin", "", "admin")],
)
async def test_every_failed_login_is_the_same_401(cloud: Cloud, user: str, password: str, project: str) -> None:
    response = await cloud.login(user, password, project)
    assert response.status == 401 and isinstance(response.body, bytes)
    assert json.loads(response.body)["error"]["message"] == "The request you have made requires authentication."
    assert response.headers.get("www-authenticate").startswith("Keystone uri=")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{",
        b"\xff",
        b'{"auth": 3}',
        b'{"auth": {"identity": {"methods": []}}}',
        b'{"auth": {"identity": {"methods": ["password"], "password": {"user": {"name": 3}}}}}',
        b"[" * 100_000,
    ],
)
async def test_malformed_logins_are_400(cloud: Cloud, body: bytes) -> None:
    assert (await cloud.ask("POST", "/v3/auth/tokens", body, token="")).status == 400


async def test_unscoped_tokens_have_no_roles_and_can_be_scoped(cloud: Cloud) -> None:
    await _member(cloud)
    unscoped = await cloud.login("john", "pw", None)
    assert isinstance(unscoped.body, bytes) and "roles" not in json.loads(unscoped.body)["token"]
    token = unscoped.headers.get("x-subject-token")
    scope = {"project": {"name": "works", "domain": {"name": "Default"}}}
    body = {"auth": {"identity": {"methods": ["token"], "token": {"id": token}}, "scope": scope}}
    scoped = await cloud.ask("POST", "/v3/auth/tokens", body, token="")
    assert scoped.status == 201
    assert cloud.room.client.authenticate(scoped.headers.get("x-subject-token")).project_name == "works"


async def test_validation_and_revocation(cloud: Cloud) -> None:
    other = (await cloud.login("admin", "secret")).headers.get("x-subject-token")
    assert (await cloud.ask("GET", "/v3/auth/tokens", subject=other)).status == 200
    assert (await cloud.ask("DELETE", "/v3/auth/tokens", subject=other)).status == 204
    assert (await cloud.ask("GET", "/v3/auth/tokens", subject=other)).status == 404
    with pytest.raises(Unauthorized):
        cloud.room.client.authenticate(other)
    assert (await cloud.ask("GET", "/v3/auth/tokens", subject="nonsense")).status == 404
    cloud.room.client.authenticate(cloud.token)


async def test_tokens_end(cloud: Cloud, autojump_clock: trio.testing.MockClock) -> None:
    await trio.sleep(3599)
    cloud.room.client.authenticate(cloud.token)
    await trio.sleep(2)
    with pytest.raises(Unauthorized):
        cloud.room.client.authenticate(cloud.token)


async def test_keys_rotate_without_a_logout(cloud: Cloud) -> None:
    await cloud.room.login.rotate()
    cloud.room.client.authenticate(cloud.token)
    assert [key.number for key in cloud.room.store.token_keys()] == [2, 1]


async def test_a_disabled_user_or_a_new_password_ends_tokens(cloud: Cloud, autojump_clock: trio.testing.MockClock) -> None:
    user = await _member(cloud)
    token = (await cloud.login("john", "pw", "works")).headers.get("x-subject-token")
    await trio.sleep(1)
    await cloud.get("PATCH", f"/v3/users/{user}", {"user": {"password": "new"}})
    with pytest.raises(Unauthorized):
        cloud.room.client.authenticate(token)
    await trio.sleep(1)
    token = (await cloud.login("john", "new", "works")).headers.get("x-subject-token")
    await cloud.get("PATCH", f"/v3/users/{user}", {"user": {"enabled": False}})
    with pytest.raises(Unauthorized):
        cloud.room.client.authenticate(token)


async def test_only_an_admin_changes_others(cloud: Cloud) -> None:
    await _member(cloud)
    token = (await cloud.login("john", "pw", "works")).headers.get("x-subject-token")
    await cloud.get("POST", "/v3/users", {"user": {"name": "eve"}}, token=token, expect=403)
    await cloud.get("GET", "/v3/users", token=token, expect=403)
    listed = await cloud.get("GET", "/v3/projects", token=token)
    assert [project["name"] for project in listed["projects"]] == ["works"]
    await cloud.get("GET", "/v3/users", token="", expect=401)


async def test_names_are_unique(cloud: Cloud) -> None:
    await _member(cloud)
    clash = await cloud.get("POST", "/v3/users", {"user": {"name": "john"}}, expect=409)
    assert "Duplicate entry found with name john" in clash["error"]["message"]
    renamed = await cloud.get("POST", "/v3/users", {"user": {"name": "jane"}}, expect=201)
    await cloud.get("PATCH", f"/v3/users/{renamed['user']['id']}", {"user": {"name": "john"}}, expect=409)
    await cloud.get("DELETE", f"/v3/users/{renamed['user']['id']}", expect=204)
    await cloud.get("POST", "/v3/users", {"user": {"name": "jane"}}, expect=201)


@pytest.mark.parametrize(
    "body", [{"user": {}}, {"user": {"name": 3}}, {"user": {"name": ""}}, {"user": {"name": "x", "what": 1}}, {"project": {}}]
)
async def test_bad_resources_are_400(cloud: Cloud, body: Any) -> None:
    await cloud.get("POST", "/v3/users", body, expect=400)


async def test_no_password_ever_leaves(cloud: Cloud) -> None:
    await _member(cloud)
    users = await cloud.get("GET", "/v3/users")
    assert "scrypt" not in json.dumps(users) and all("password" not in user for user in users["users"])


async def test_grants_and_their_end(cloud: Cloud) -> None:
    user = await _member(cloud)
    named = await cloud.get("GET", f"/v3/role_assignments?user.id={user}&include_names=True")
    assert [(one["role"]["name"], one["scope"]["project"]["name"]) for one in named["role_assignments"]] == [("member", "works")]
    assignment = named["role_assignments"][0]
    path = f"/v3/projects/{assignment['scope']['project']['id']}/users/{user}/roles/{assignment['role']['id']}"
    await cloud.get("HEAD", path, expect=204)
    await cloud.get("DELETE", path, expect=204)
    await cloud.get("DELETE", path, expect=404)
    assert (await cloud.login("john", "pw", "works")).status == 401


async def test_s3_keys(cloud: Cloud) -> None:
    first = cloud.room.client.s3_key("ACCESS")
    assert first is not None and first.secret == "S3SECRET" and first.access.is_admin
    user = await _member(cloud)
    project = (await cloud.get("GET", "/v3/projects?name=works"))["projects"][0]["id"]
    path = f"/v3/users/{user}/credentials/OS-EC2"
    made = (await cloud.get("POST", path, {"tenant_id": project}, expect=201))["credential"]
    key = cloud.room.client.s3_key(made["access"])
    assert key is not None and (key.secret, key.access.project_id) == (made["secret"], project)
    sealed = cloud.room.store.credential(made["access"])
    assert sealed is not None and made["secret"] not in sealed.sealed_secret
    await cloud.get("DELETE", f"{path}/{made['access']}", expect=204)
    assert cloud.room.client.s3_key(made["access"]) is None
    assert cloud.room.client.s3_key("nothing") is None


async def test_version_documents(cloud: Cloud) -> None:
    root = await cloud.get("GET", "/", expect=300, token="")
    assert root["versions"]["values"][0]["links"][0]["href"] == "http://c/identity/v3/"
    assert (await cloud.get("GET", "/v3", token=""))["version"]["id"] == "v3.14"


async def test_the_gate(cloud: Cloud) -> None:
    async def hello(request: Request) -> Response:
        return Response(200, Headers(), caller(request).user_name.encode())

    gate = authenticated(cloud.room.client, hello, auth_url="http://c", open_to_all=lambda request: request.target == "/open")
    refused = await gate(Request("GET", "/", Headers(), BytesBody()))
    assert (refused.status, refused.headers.get("www-authenticate")) == (401, 'Keystone uri="http://c"')
    known = await gate(Request("GET", "/", Headers([("x-auth-token", cloud.token)]), BytesBody()))
    assert known.body == b"admin"


async def _member(cloud: Cloud) -> str:
    """john, with password pw and the role member on project works."""
    project = (await cloud.get("POST", "/v3/projects", {"project": {"name": "works"}}, expect=201))["project"]["id"]
    user: str = (await cloud.get("POST", "/v3/users", {"user": {"name": "john", "password": "pw"}}, expect=201))["user"]["id"]
    role = (await cloud.get("GET", "/v3/roles?name=member"))["roles"][0]["id"]
    await cloud.get("PUT", f"/v3/projects/{project}/users/{user}/roles/{role}", expect=204)
    return user

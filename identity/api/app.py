"""The Identity API's routes (paths from "/", the mount point is the caller's) and its version documents."""

from __future__ import annotations

from typing import Any

from identity.api.auth import AuthApi
from identity.api.form import wording
from identity.api.grants import CredentialApi, GrantApi
from identity.api.resources import KINDS, ResourceApi
from identity.client.sealing import Sealer
from identity.login import Login
from identity.store import IdentityStore
from ring.wire.jsonapi import answer
from ring.wire.message import Handler, Request, Response
from ring.wire.router import Router
from ring.world.interface import World


def make_api(world: World, store: IdentityStore, login: Login, sealer: Sealer, *, public_url: str) -> Handler:
    """``public_url``: where clients reach this API, without "/v3"."""
    router = Router()
    worded = wording(f"{public_url}/v3").around

    def add(methods: str, path: str, handler: Handler) -> None:
        for method in methods.split():
            router.add(method, path, worded(handler))

    async def versions(request: Request) -> Response:
        return answer(300, {"versions": {"values": [_version(public_url)]}})

    async def version(request: Request) -> Response:
        return answer(200, {"version": _version(public_url)})

    add("GET HEAD", "/", versions)
    add("GET HEAD", "/v3", version)
    auth = AuthApi(store, login, public_url)
    add("POST", "/v3/auth/tokens", auth.issue)
    add("GET HEAD", "/v3/auth/tokens", auth.validate)
    add("DELETE", "/v3/auth/tokens", auth.revoke)
    add("GET", "/v3/auth/catalog", auth.catalog)
    add("GET", "/v3/auth/projects", auth.projects)
    add("GET", "/v3/auth/domains", auth.domains)
    for kind in KINDS:
        api = ResourceApi(world, store, login, public_url, kind)
        add("GET", f"/v3/{kind.collection}", api.index)
        add("POST", f"/v3/{kind.collection}", api.create)
        add("GET HEAD", f"/v3/{kind.collection}/{{id}}", api.show)
        add("PATCH", f"/v3/{kind.collection}/{{id}}", api.update)
        add("DELETE", f"/v3/{kind.collection}/{{id}}", api.delete)
        if kind.word == "user":
            add("POST", "/v3/users/{id}/password", api.change_password)
        if kind.word == "region":
            add("PUT", "/v3/regions/{id}", api.create)
    grants = GrantApi(store, login, public_url)
    for scope in ("projects", "domains"):
        roles = f"/v3/{scope}/{{id}}/users/{{user}}/roles"
        add("GET", roles, grants.index)
        add("PUT", f"{roles}/{{role}}", grants.put)
        add("GET HEAD", f"{roles}/{{role}}", grants.check)
        add("DELETE", f"{roles}/{{role}}", grants.delete)
    add("GET", "/v3/role_assignments", grants.assignments)
    credentials = CredentialApi(world, store, login, sealer, public_url)
    ec2 = "/v3/users/{id}/credentials/OS-EC2"
    add("POST", ec2, credentials.create)
    add("GET", ec2, credentials.index)
    add("GET", f"{ec2}/{{access}}", credentials.show)
    add("DELETE", f"{ec2}/{{access}}", credentials.delete)
    return router


def _version(public_url: str) -> dict[str, Any]:
    return {
        "id": "v3.14",
        "status": "stable",
        "updated": "2020-04-07T00:00:00Z",
        "links": [{"rel": "self", "href": f"{public_url}/v3/"}],
        "media-types": [{"base": "application/json", "type": "application/vnd.openstack.identity-v3+json"}],
    }

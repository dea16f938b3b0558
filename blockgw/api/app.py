"""The Block Storage API's routes (paths from "/", the mount point is the caller's) and its version documents."""

from __future__ import annotations

from typing import Any

from blockgw.api.volumes import VOLUME_TYPE, ImageGate, VolumesApi, every_image
from blockgw.client.interface import Volumes
from identity.client.gate import IDENTITY_STATUSES, authenticated
from identity.client.interface import Identity
from ring.errors import NotFound
from ring.wire.jsonapi import RING_STATUSES, Wording, answer, fault
from ring.wire.message import Handler, Request, Response
from ring.wire.router import Router

TYPE_ID = "00000000-0000-4000-8000-000000000001"
_OPEN = ("", "/", "/v3", "/v3/")


def make_api(
    volumes: Volumes, identity: Identity, *, public_url: str, auth_url: str, may_use_image: ImageGate = every_image
) -> Handler:
    """``public_url``: where clients reach this API, without "/v3".  ``may_use_image``: whether a caller sees an active image."""
    router = Router()
    worded = Wording((*IDENTITY_STATUSES, *RING_STATUSES), fault).around

    def add(methods: str, path: str, handler: Handler) -> None:
        for method in methods.split():
            router.add(method, path, worded(handler))

    async def versions(request: Request) -> Response:
        return answer(300 if request.raw_path in ("", "/") else 200, {"versions": [_version(public_url)]})

    volume_type: dict[str, Any] = {
        "id": TYPE_ID,
        "name": VOLUME_TYPE,
        "description": "Volumes made of objects",
        "is_public": True,
        "os-volume-type-access:is_public": True,
        "extra_specs": {},
    }

    async def types(request: Request) -> Response:
        return answer(200, {"volume_types": [volume_type]})

    async def one_type(request: Request) -> Response:
        if request.params["id"] not in (TYPE_ID, VOLUME_TYPE, "default"):
            raise NotFound(f"Volume type {request.params['id']} could not be found.")
        return answer(200, {"volume_type": volume_type})

    async def none(request: Request) -> Response:
        """Lists of what this cloud does not have yet: clients look there before they show a volume."""
        name = request.raw_path.rstrip("/").removesuffix("/detail").rpartition("/")[2]
        return answer(200, {name: []})

    for path in ("/", "/v3"):
        add("GET HEAD", path, versions)
    api = VolumesApi(volumes, public_url, may_use_image)
    add("POST", "/v3/{project}/volumes", api.create)
    add("GET", "/v3/{project}/volumes", api.index)
    add("GET", "/v3/{project}/volumes/detail", api.detail)
    add("GET HEAD", "/v3/{project}/volumes/{id}", api.show)
    add("PUT", "/v3/{project}/volumes/{id}", api.update)
    add("DELETE", "/v3/{project}/volumes/{id}", api.delete)
    add("GET", "/v3/{project}/types", types)
    add("GET", "/v3/{project}/types/{id}", one_type)
    for nothing in ("snapshots", "backups"):
        add("GET", f"/v3/{{project}}/{nothing}", none)
        add("GET", f"/v3/{{project}}/{nothing}/detail", none)
    return authenticated(identity, router, auth_url=auth_url, open_to_all=lambda request: request.raw_path in _OPEN)


def _version(public_url: str) -> dict[str, Any]:
    return {
        "id": "v3.0",
        "status": "CURRENT",
        "version": "3.0",
        "min_version": "3.0",
        "updated": "2026-11-01T00:00:00Z",
        "links": [{"rel": "self", "href": f"{public_url}/v3/"}],
        "media-types": [{"base": "application/json", "type": "application/vnd.openstack.volume+json;version=3"}],
    }

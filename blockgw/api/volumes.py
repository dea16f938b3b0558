"""Volumes over HTTP (Block Storage API v3, "Volumes").  A project sees its own; an admin all, with all_tenants."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from blockgw.client.interface import Volume, Volumes, VolumeStatus
from identity.client.gate import caller
from identity.client.interface import Access, Forbidden
from ring.errors import BadInput
from ring.wire.jsonapi import answer, json_object, member, text, whole
from ring.wire.message import Headers, Request, Response
from ring.wire.query import Query

VOLUME_TYPE = "__DEFAULT__"
LIMIT_MAX = 1000
# What the create call may name and this cloud does not have: refused when it asks for something.
_UNSUPPORTED = ("snapshot_id", "source_volid", "backup_id", "consistencygroup_id")

ImageGate = Callable[[Access, str], bool]  # by image id


def every_image(access: Access, image_id: str) -> bool:
    return True


class VolumesApi:
    def __init__(self, volumes: Volumes, base: str, may_use_image: ImageGate) -> None:
        """``base``: public URL up to and without "/v3"."""
        self._volumes = volumes
        self._base = base
        self._may_use_image = may_use_image

    async def create(self, request: Request) -> Response:
        access = _access(request)
        body = member(await json_object(request), "volume")
        for name in _UNSUPPORTED:
            if body.get(name):
                raise BadInput(f"{name} is not supported by this cloud.")
        if body.get("volume_type") not in (None, "", VOLUME_TYPE):
            raise BadInput(f"Volume type {body['volume_type']!r:.80} could not be found.")
        size = whole(body.get("size"), "size")
        metadata = body.get("metadata") or {}
        if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
            raise BadInput("Invalid input received: metadata must be an object of strings")
        name, description, image_id = text(body, "name", ""), text(body, "description", ""), text(body, "imageRef", "")
        if image_id and not self._may_use_image(access, image_id):
            raise BadInput("Invalid image identifier or unable to access requested image.")
        volume = await self._volumes.create(
            access, size_gib=size, name=name, description=description, image_id=image_id, metadata=metadata
        )
        return answer(202, {"volume": self._render(volume, access.project_id)})

    async def show(self, request: Request) -> Response:
        access = _access(request)
        volume = await self._volumes.show(request.params["id"], project_id=_seen_by(access))
        return answer(200, {"volume": self._render(volume, access.project_id)})

    async def index(self, request: Request) -> Response:
        found = await self._found(request)
        access = _access(request)
        links = [{"id": v.id, "name": v.name, "links": self._links(v.id, access.project_id)} for v in found]
        return answer(200, {"volumes": links})

    async def detail(self, request: Request) -> Response:
        access = _access(request)
        return answer(200, {"volumes": [self._render(v, access.project_id) for v in await self._found(request)]})

    async def update(self, request: Request) -> Response:
        access = _access(request)
        body = member(await json_object(request), "volume")
        name = text(body, "name") if body.get("name") is not None else None
        description = text(body, "description") if body.get("description") is not None else None
        seen = _seen_by(access)
        volume = await self._volumes.update(request.params["id"], project_id=seen, name=name, description=description)
        return answer(200, {"volume": self._render(volume, access.project_id)})

    async def delete(self, request: Request) -> Response:
        await self._volumes.delete(request.params["id"], project_id=_seen_by(_access(request)))
        return Response(202, Headers())

    async def _found(self, request: Request) -> list[Volume]:
        access = _access(request)
        query = Query.parse(request.query_string)
        wanted = dict(query)
        everyone = wanted.get("all_tenants", "").lower() in ("1", "true")
        if everyone and not access.is_admin:
            raise Forbidden("Policy doesn't allow volume:get_all_projects to be performed.")
        found = await self._volumes.list(project_id=None if everyone else access.project_id)
        if "name" in wanted:
            found = [volume for volume in found if volume.name == wanted["name"]]
        if "status" in wanted:
            found = [volume for volume in found if volume.status.value == wanted["status"]]
        if "marker" in wanted:
            ids = [volume.id for volume in found]
            if wanted["marker"] not in ids:
                raise BadInput(f"marker {wanted['marker']:.64} could not be found")
            found = found[ids.index(wanted["marker"]) + 1 :]
        return found[: query.number("limit", LIMIT_MAX)]

    def _links(self, volume_id: str, project_id: str) -> list[dict[str, str]]:
        return [{"rel": "self", "href": f"{self._base}/v3/{project_id}/volumes/{volume_id}"}]

    def _render(self, volume: Volume, project_id: str) -> dict[str, Any]:
        attachments = []
        if volume.status is VolumeStatus.IN_USE:
            attachments.append(
                {
                    "id": volume.id,
                    "attachment_id": volume.id,
                    "volume_id": volume.id,
                    "server_id": volume.server_id,
                    "device": volume.device,
                    "host_name": None,
                    "attached_at": moment(volume.updated),
                }
            )
        body: dict[str, Any] = {
            "id": volume.id,
            "name": volume.name,
            "description": volume.description,
            "status": volume.status.value,
            "size": volume.size_gib,
            "bootable": "true" if volume.bootable else "false",
            "attachments": attachments,
            "availability_zone": "nova",
            "created_at": moment(volume.created),
            "updated_at": moment(volume.updated),
            "volume_type": VOLUME_TYPE,
            "metadata": dict(volume.metadata),
            "encrypted": False,
            "multiattach": False,
            "snapshot_id": None,
            "source_volid": None,
            "consistencygroup_id": None,
            "replication_status": None,
            "user_id": volume.user_id,
            "os-vol-tenant-attr:tenant_id": volume.project_id,
            "links": self._links(volume.id, project_id),
        }
        if volume.image_id:
            body["volume_image_metadata"] = {"image_id": volume.image_id}
        return body


def moment(seconds: float) -> str:
    """2026-01-01T00:00:00.000000"""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")


def _access(request: Request) -> Access:
    """The caller, who must act in the project of the path."""
    access = caller(request)
    if not access.project_id or (request.params["project"] != access.project_id and not access.is_admin):
        raise BadInput("Malformed request url: the project in it is not the token's")
    return access


def _seen_by(access: Access) -> str | None:
    return None if access.is_admin else access.project_id

"""The Image API v2 over HTTP (paths from "/", the mount point is the caller's).  Its errors are small HTML pages, as Glance's
are."""

from __future__ import annotations

from collections.abc import Callable
from html import escape
from http import HTTPStatus
from typing import Any
from uuid import UUID

import msgspec
import trio

from blockgw.client.interface import Images
from blockgw.client.owner import Owner
from compute.images.agent import source_path
from compute.images.records import ImageRecord, patched, render, visible_to, with_data, with_fields
from compute.images.store import ImageRecords
from identity.client.gate import IDENTITY_STATUSES, authenticated, caller
from identity.client.interface import Access, Forbidden, Identity
from proxy.client.interface import Objects
from ring.errors import BadInput, Conflict, NotFound
from ring.wire.jsonapi import RING_STATUSES, Wording, answer, json_object, member, text
from ring.wire.message import Handler, Headers, Request, Response
from ring.wire.query import Query, encode_query
from ring.wire.router import Router
from ring.world.interface import World

LIMIT_DEFAULT = 25
LIMIT_MAX = 1000
IMPORT_METHOD = "web-download"
_OPEN = ("", "/", "/versions", "/versions/", "/v2", "/v2/")
_FILTERS = ("name", "status", "disk_format", "container_format", "visibility", "owner", "checksum")


def make_api(
    world: World,
    records: ImageRecords,
    images: Images,
    objects: Objects,
    identity: Identity,
    *,
    public_url: str,
    auth_url: str,
    uploader: Owner,
) -> Handler:
    """``public_url``: where clients reach this API, without "/v2".  ``uploader``: this process."""
    router = Router()
    worded = Wording((*IDENTITY_STATUSES, *RING_STATUSES), html).around
    api = ImagesApi(world, records, images, objects, uploader)

    def add(methods: str, path: str, handler: Handler) -> None:
        for method in methods.split():
            router.add(method, path, worded(handler))

    async def versions(request: Request) -> Response:
        numbers = ("v2.17", "v2.15", "v2.13", "v2.12", "v2.11", "v2.10", "v2.9", "v2.7", "v2.6", "v2.5", "v2.4", "v2.3")
        found = [
            {
                "id": number,
                "status": "SUPPORTED" if place else "CURRENT",
                "links": [{"rel": "self", "href": f"{public_url}/v2/"}],
            }
            for place, number in enumerate((*numbers, "v2.2", "v2.1", "v2.0"))
        ]
        return answer(300 if request.raw_path in ("", "/") else 200, {"versions": found})

    async def methods(request: Request) -> Response:
        described = {"description": "Import methods available.", "type": "array", "value": [IMPORT_METHOD]}
        return answer(200, {"import-methods": described})

    for path in ("/", "/versions", "/v2"):
        add("GET HEAD", path, versions)
    add("GET", "/v2/info/import", methods)
    add("POST", "/v2/images", api.create)
    add("GET", "/v2/images", api.index)
    add("GET HEAD", "/v2/images/{id}", api.show)
    add("PATCH", "/v2/images/{id}", api.patch)
    add("DELETE", "/v2/images/{id}", api.delete)
    add("PUT", "/v2/images/{id}/file", api.upload)
    add("GET", "/v2/images/{id}/file", api.download)
    add("POST", "/v2/images/{id}/import", api.start_import)
    return authenticated(identity, router, auth_url=auth_url, open_to_all=lambda request: request.raw_path in _OPEN)


def html(status: int, message: str) -> Response:
    title = f"{status} {HTTPStatus(status).phrase}"
    page = (
        f"<html>\n <head>\n  <title>{title}</title>\n </head>\n <body>\n  <h1>{title}</h1>\n  {escape(message)}<br /><br />\n\n\n"
    )
    return Response(status, Headers([("Content-Type", "text/html; charset=UTF-8")]), (page + " </body>\n</html>").encode())


class ImagesApi:
    def __init__(self, world: World, records: ImageRecords, images: Images, objects: Objects, uploader: Owner) -> None:
        self._world = world
        self._uploader = uploader
        self._records = records
        self._images = images
        self._objects = objects

    async def create(self, request: Request) -> Response:
        access = caller(request)
        given = await json_object(request)
        image_id = given.pop("id", None) or str(self._world.entropy.uuid())
        try:
            if not isinstance(image_id, str) or str(UUID(image_id)) != image_id:
                raise ValueError(image_id)
        except ValueError as error:
            raise BadInput("Image IDs must be UUIDs in lower case.") from error
        owner = text(given, "owner", "") or access.project_id
        given.pop("owner", None)
        if owner != access.project_id and not access.is_admin:
            raise Forbidden("You are not permitted to create images owned by another project.")
        now = self._world.clock.now()
        record = with_fields(ImageRecord(id=image_id, owner=owner, created=now, updated=now), given)
        _may_publish(record, access)
        await self._records.create(record)
        response = answer(201, render(record))
        response.headers.add("OpenStack-image-import-methods", IMPORT_METHOD)
        response.headers.add("Location", f"/v2/images/{image_id}")
        return response

    async def index(self, request: Request) -> Response:
        access = caller(request)
        query = Query.parse(request.query_string)
        wanted = dict(query)
        found = [record for record in self._records.all() if visible_to(record, access) and _matches(record, wanted, access)]
        if wanted.get("sort", wanted.get("sort_key", "")).startswith("name"):
            found.sort(key=lambda record: record.name, reverse="desc" in wanted.get("sort", wanted.get("sort_dir", "")))
        if "marker" in wanted:
            ids = [record.id for record in found]
            if wanted["marker"] not in ids:
                raise BadInput(f"Invalid marker {wanted['marker']:.64}")
            found = found[ids.index(wanted["marker"]) + 1 :]
        page = found[: min(query.number("limit", LIMIT_DEFAULT), LIMIT_MAX)]
        body: dict[str, Any] = {
            "images": [render(record) for record in page],
            "schema": "/v2/schemas/images",
            "first": "/v2/images",
        }
        if len(page) < len(found) and page:
            body["next"] = f"/v2/images?{encode_query(wanted | {'marker': page[-1].id})}"
        return answer(200, body)

    async def show(self, request: Request) -> Response:
        return answer(200, render(self._visible(request)))

    async def patch(self, request: Request) -> Response:
        access = caller(request)
        self._own(request)
        data = await request.body.read_all(1 << 20)
        try:
            patch = msgspec.json.decode(data, type=list[Any])
        except (msgspec.DecodeError, RecursionError) as error:
            raise BadInput(f"The request body must be a JSON array: {error}") from error

        def change(record: ImageRecord) -> ImageRecord:
            new = patched(record, patch)
            if record.status == "active" and (new.disk_format, new.container_format) != (
                record.disk_format,
                record.container_format,
            ):
                raise Forbidden("The formats of an active image cannot be changed.")
            _may_publish(new, access)
            return new

        return answer(200, render(await self._records.change(request.params["id"], change)))

    async def delete(self, request: Request) -> Response:
        record = self._own(request)
        if record.protected:
            raise Forbidden(f"Image {record.id} is protected and cannot be deleted.")
        await self._images.delete(record.id)
        await self._records.delete(record.id)
        return Response(204, Headers())

    async def upload(self, request: Request) -> Response:
        record = self._own(request)
        self._formats_known(record)

        def begin(old: ImageRecord) -> ImageRecord:
            return msgspec.structs.replace(_from("queued", "saving")(old), uploader=str(self._uploader))

        await self._records.change(record.id, begin)
        try:
            data = await self._images.store(record.id, request.body)
        except BaseException:
            await self._back(record.id)
            raise
        try:
            await self._records.change(record.id, lambda old: with_data(old, data))
        except NotFound:  # deleted meanwhile: then so is what came
            await self._images.delete(record.id)
            raise
        return Response(204, Headers())

    async def download(self, request: Request) -> Response:
        record = self._visible(request)
        if record.status != "active" or record.size is None:
            return Response(204, Headers())
        fields = [("Content-Type", "application/octet-stream")]
        if record.checksum:
            fields.append(("Content-MD5", record.checksum))
        return Response(200, Headers(fields), await self._images.read(record.id), length=record.size)

    async def start_import(self, request: Request) -> Response:
        """POST /import: web-download of one of the project's own objects (other uris are refused: nothing outside is fetched)."""
        record = self._own(request)
        self._formats_known(record)
        method = member(await json_object(request), "method")
        if text(method, "name") != IMPORT_METHOD:
            raise BadInput(f"Import method {method['name']!r:.64} is not supported: {IMPORT_METHOD}.")
        source = text(method, "uri", characters_max=2048)
        source_path(source, record.owner, self._objects)

        def change(old: ImageRecord) -> ImageRecord:
            return msgspec.structs.replace(_from("queued", "importing")(old), source=source, imported=0, message="")

        await self._records.change(record.id, change)
        return Response(202, Headers())

    async def _back(self, image_id: str) -> None:
        """After an upload that failed: the image waits for its data again."""
        with trio.CancelScope(deadline=trio.current_time() + 10, shield=True):
            await self._records.change(image_id, _from("saving", "queued"))

    def _visible(self, request: Request) -> ImageRecord:
        record = self._records.find(request.params["id"])
        if not visible_to(record, caller(request)):
            raise NotFound(f"No image found with ID {record.id}")
        return record

    def _own(self, request: Request) -> ImageRecord:
        record = self._visible(request)
        access = caller(request)
        if record.owner != access.project_id and not access.is_admin:
            raise Forbidden("You are not permitted to modify this image.")
        return record

    def _formats_known(self, record: ImageRecord) -> None:
        if not record.disk_format or not record.container_format:
            raise BadInput("disk_format and container_format must be set before the data is given.")


def _from(old_status: str, new_status: str) -> Callable[[ImageRecord], ImageRecord]:
    def change(record: ImageRecord) -> ImageRecord:
        if record.status != old_status:
            raise Conflict(f"Image status transition from {record.status} to {new_status} is not allowed")
        return msgspec.structs.replace(record, status=new_status)

    return change


def _may_publish(record: ImageRecord, access: Access) -> None:
    if record.visibility == "public" and not access.is_admin:
        raise Forbidden("You are not authorized to complete publicize_image action.")


def _matches(record: ImageRecord, wanted: dict[str, str], access: Access) -> bool:
    shown = render(record)
    for name in _FILTERS:
        value = wanted.get(name)
        if value is None or (name == "visibility" and value == "all"):
            continue
        allowed = value[3:].split(",") if value.startswith("in:") else [value]
        if shown[name] not in allowed:
            return False
    if "id" in wanted:
        value = wanted["id"]
        if record.id not in (value[3:].split(",") if value.startswith("in:") else [value]):
            return False
    if (
        record.visibility == "community"
        and record.owner != access.project_id
        and wanted.get("visibility") not in ("community", "all")
    ):
        return False
    return record.os_hidden == (wanted.get("os_hidden", "").lower() == "true")

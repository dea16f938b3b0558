"""The Compute API v2.1 over HTTP (paths from "/", the mount point is the caller's); no microversions are advertised."""

from __future__ import annotations

import dataclasses
from typing import Any
from uuid import UUID

import msgspec

from blockgw.client.interface import Volumes, VolumeStatus
from compute.hypervisor.interface import Hypervisor
from compute.images.records import moment, visible_to
from compute.images.store import ImageRecords
from compute.servers.flavors import FLAVORS, Flavor, flavor
from compute.servers.records import ACTIVE, DELETED, STOPPED, ServerRecord, power_state, status
from compute.servers.store import ServerRecords
from identity.client.gate import IDENTITY_STATUSES, authenticated, caller
from identity.client.interface import Access, Forbidden, Identity
from ring.errors import BadInput, Conflict, NotFound
from ring.wire.jsonapi import RING_STATUSES, Wording, answer, fault, json_object, member, text, whole
from ring.wire.message import Handler, Headers, Request, Response
from ring.wire.query import Query
from ring.wire.router import Router
from ring.world.interface import World

GIB = 1 << 30
CONSOLE_BYTES_MAX = 1 << 20
LIMIT_MAX = 1000
_OPEN = ("", "/", "/v2.1", "/v2.1/")


def make_api(
    world: World,
    records: ServerRecords,
    images: ImageRecords,
    volumes: Volumes,
    hypervisor: Hypervisor,
    identity: Identity,
    *,
    public_url: str,
    auth_url: str,
) -> Handler:
    """``public_url``: where clients reach this API, without "/v2.1"."""
    router = Router()
    worded = Wording((*IDENTITY_STATUSES, *RING_STATUSES), fault).around
    api = ServersApi(world, records, images, volumes, hypervisor, f"{public_url}/v2.1")

    def add(methods: str, path: str, handler: Handler) -> None:
        for method in methods.split():
            router.add(method, path, worded(handler))

    async def versions(request: Request) -> Response:
        return answer(300, {"versions": [_version(public_url)]})

    async def version(request: Request) -> Response:
        return answer(200, {"version": _version(public_url)})

    add("GET HEAD", "/", versions)
    add("GET HEAD", "/v2.1", version)
    add("POST", "/v2.1/servers", api.create)
    add("GET", "/v2.1/servers", api.index)
    add("GET", "/v2.1/servers/detail", api.detail)
    add("GET HEAD", "/v2.1/servers/{id}", api.show)
    add("PUT", "/v2.1/servers/{id}", api.update)
    add("DELETE", "/v2.1/servers/{id}", api.delete)
    add("POST", "/v2.1/servers/{id}/action", api.action)
    add("GET", "/v2.1/servers/{id}/os-volume_attachments", api.attachments)
    add("GET", "/v2.1/flavors", api.flavors)
    add("GET", "/v2.1/flavors/detail", api.flavors_detail)
    add("GET HEAD", "/v2.1/flavors/{id}", api.flavor)
    add("GET", "/v2.1/flavors/{id}/os-extra_specs", api.extra_specs)
    return authenticated(identity, router, auth_url=auth_url, open_to_all=lambda request: request.raw_path in _OPEN)


def _version(public_url: str) -> dict[str, Any]:
    return {
        "id": "v2.1",
        "status": "CURRENT",
        "version": "",
        "min_version": "",
        "updated": "2013-07-23T11:33:21Z",
        "links": [{"rel": "self", "href": f"{public_url}/v2.1/"}],
        "media-types": [{"base": "application/json", "type": "application/vnd.openstack.compute+json;version=2.1"}],
    }


class ServersApi:
    def __init__(
        self,
        world: World,
        records: ServerRecords,
        images: ImageRecords,
        volumes: Volumes,
        hypervisor: Hypervisor,
        base: str,
    ) -> None:
        self._world = world
        self._records = records
        self._images = images
        self._volumes = volumes
        self._hypervisor = hypervisor
        self._base = base

    # ---- servers

    async def create(self, request: Request) -> Response:
        access = caller(request)
        if not access.project_id:
            raise Forbidden("A server needs a token of a project.")
        body = member(await json_object(request), "server")
        name = _name(body)
        if body.get("min_count") not in (None, 1) or body.get("max_count") not in (None, 1):
            raise BadInput("Only one server can be created at a time.")
        size = _flavor_named(text(body, "flavorRef"))
        metadata = body.get("metadata") or {}
        if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
            raise BadInput("Invalid input for field/attribute metadata: an object of strings.")
        server_id = str(self._world.entropy.uuid())
        image_id, volume_id, own = await self._root_disk(access, body, size, name)
        now = self._world.clock.now()
        record = ServerRecord(
            id=server_id,
            project_id=access.project_id,
            user_id=access.user_id,
            name=name,
            flavor_id=size.id,
            image_id=image_id,
            volume_id=volume_id,
            own_volume=own,
            metadata=metadata,
            task_state="scheduling",
            created=now,
            updated=now,
        )
        await self._records.create(record)
        server = {
            "id": server_id,
            "links": self._links("servers", server_id),
            "OS-DCF:diskConfig": "MANUAL",
            "adminPass": self._world.entropy.token(6).hex(),
            "security_groups": [{"name": "default"}],
        }
        response = answer(202, {"server": server})
        response.headers.add("Location", f"{self._base}/servers/{server_id}")
        return response

    async def index(self, request: Request) -> Response:
        found = self._found(request)
        return answer(200, {"servers": [{"id": r.id, "name": r.name, "links": self._links("servers", r.id)} for r in found]})

    async def detail(self, request: Request) -> Response:
        return answer(200, {"servers": [self._render(record, caller(request)) for record in self._found(request)]})

    async def show(self, request: Request) -> Response:
        return answer(200, {"server": self._render(self._own(request), caller(request))})

    async def update(self, request: Request) -> Response:
        record = self._own(request)
        name = _name(member(await json_object(request), "server"))
        record = await self._records.change(record.id, lambda old: msgspec.structs.replace(old, name=name))
        return answer(200, {"server": self._render(record, caller(request))})

    async def delete(self, request: Request) -> Response:
        record = self._own(request)
        await self._records.change(record.id, lambda old: msgspec.structs.replace(old, wanted=DELETED, task_state="deleting"))
        return Response(204, Headers())

    async def action(self, request: Request) -> Response:
        record = self._own(request)
        body = await json_object(request)
        if len(body) != 1:
            raise BadInput("An action is an object with one name.")
        match next(iter(body)):
            case "os-getConsoleOutput":
                return await self._console(record, body)
            case "os-start":
                _need(record, "stopped", "start")
                await self._want(record, ACTIVE, "powering-on")
            case "os-stop":
                _need(record, "active", "stop")
                await self._want(record, STOPPED, "")
            case "reboot":
                if record.vm_state not in ("active", "stopped", "error"):
                    raise Conflict(f"Cannot 'reboot' instance {record.id} while it is in vm_state {record.vm_state}")
                await self._want(record, ACTIVE, "rebooting")
            case other:
                raise BadInput(f"There is no such action: {other[:64]}")
        return Response(202, Headers())

    async def attachments(self, request: Request) -> Response:
        record = self._own(request)
        one = {"id": record.volume_id, "volumeId": record.volume_id, "serverId": record.id, "device": "/dev/vda"}
        return answer(200, {"volumeAttachments": [one]})

    # ---- flavors

    async def flavors(self, request: Request) -> Response:
        found = [{"id": one.id, "name": one.name, "links": self._links("flavors", one.id)} for one in FLAVORS]
        return answer(200, {"flavors": found})

    async def flavors_detail(self, request: Request) -> Response:
        return answer(200, {"flavors": [self._render_flavor(one) for one in FLAVORS]})

    async def flavor(self, request: Request) -> Response:
        return answer(200, {"flavor": self._render_flavor(flavor(request.params["id"]))})

    async def extra_specs(self, request: Request) -> Response:
        flavor(request.params["id"])
        return answer(200, {"extra_specs": {}})

    # ---- inside

    async def _root_disk(self, access: Access, body: dict[str, Any], size: Flavor, name: str) -> tuple[str, str, bool]:
        """(image id, volume id, whether the volume was made for the server)."""
        mappings = body.get("block_device_mapping_v2") or []
        if not isinstance(mappings, list) or len(mappings) > 1 or not all(isinstance(one, dict) for one in mappings):
            raise BadInput("block_device_mapping_v2: one root disk is supported.")
        image_id = text(body, "imageRef", "").rpartition("/")[2]
        if mappings:
            one = mappings[0]
            source, uuid = text(one, "source_type", ""), text(one, "uuid", "")
            if source == "volume":
                volume = await self._volumes.show(uuid, project_id=None if access.is_admin else access.project_id)
                if volume.status not in (VolumeStatus.AVAILABLE, VolumeStatus.CREATING):
                    raise BadInput(f"Volume {uuid} is {volume.status.value}: it must be available to boot from.")
                return "", volume.id, one.get("delete_on_termination") is True
            if source != "image":
                raise BadInput(f"block_device_mapping_v2: source_type {source!r:.64} is not supported.")
            image_id = image_id or uuid
            asked = one.get("volume_size")
            if asked is not None:
                size = dataclasses.replace(size, disk_gib=whole(asked, "volume_size"))
        if not image_id:
            raise BadInput("Invalid imageRef provided: a server boots from an image or a volume.")
        try:
            image = self._images.find(image_id)
        except NotFound as error:
            raise BadInput(f"Can not find requested image {image_id:.64}") from error
        if not visible_to(image, access) or image.status != "active":
            raise BadInput(f"Image {image_id} is not active.")
        if image.min_ram > size.memory_mib:
            raise BadInput("Flavor's memory is too small for requested image.")
        needed = max(image.min_disk, -(-(image.virtual_size or 0) // GIB))
        if needed > size.disk_gib:
            raise BadInput(f"Flavor's disk is too small for requested image. It needs {needed} GiB.")
        volume = await self._volumes.create(access, size_gib=size.disk_gib, name=f"{name}-root", image_id=image_id)
        return image_id, volume.id, True

    async def _console(self, record: ServerRecord, body: dict[str, Any]) -> Response:
        length = member(body, "os-getConsoleOutput").get("length")
        count = -1 if length is None else whole(length, "length")
        data = await self._hypervisor.console(UUID(record.id), CONSOLE_BYTES_MAX)
        lines = data.decode("utf-8", "replace").replace("\r\n", "\n")
        if count >= 0:
            lines = "\n".join(lines.split("\n")[-count:]) if count else ""
        return answer(200, {"output": lines})

    async def _want(self, record: ServerRecord, wanted: str, task: str) -> None:
        def change(old: ServerRecord) -> ServerRecord:
            if old.wanted == DELETED:
                raise Conflict(f"Instance {old.id} is being deleted.")
            return msgspec.structs.replace(old, wanted=wanted, task_state=task)

        await self._records.change(record.id, change)

    def _own(self, request: Request) -> ServerRecord:
        access = caller(request)
        record = self._records.find(request.params["id"])
        if record.project_id != access.project_id and not access.is_admin:
            raise NotFound(f"Instance {record.id} could not be found.")
        return record

    def _found(self, request: Request) -> list[ServerRecord]:
        access = caller(request)
        query = Query.parse(request.query_string)
        wanted = dict(query)
        everyone = access.is_admin and wanted.get("all_tenants", "").lower() in ("1", "true")
        found = [r for r in self._records.all() if everyone or r.project_id == access.project_id]
        if "name" in wanted:
            found = [r for r in found if wanted["name"].strip("^$") in r.name]
        if "status" in wanted:
            found = [r for r in found if status(r) == wanted["status"].upper()]
        if "marker" in wanted:
            ids = [r.id for r in found]
            if wanted["marker"] not in ids:
                raise BadInput(f"marker [{wanted['marker']:.64}] not found")
            found = found[ids.index(wanted["marker"]) + 1 :]
        return found[: query.number("limit", LIMIT_MAX)]

    def _links(self, kind: str, item_id: str) -> list[dict[str, str]]:
        return [{"rel": "self", "href": f"{self._base}/{kind}/{item_id}"}]

    def _render(self, record: ServerRecord, access: Access) -> dict[str, Any]:
        body: dict[str, Any] = {
            "id": record.id,
            "name": record.name,
            "status": status(record),
            "tenant_id": record.project_id,
            "user_id": record.user_id,
            "metadata": record.metadata,
            "created": moment(record.created),
            "updated": moment(record.updated),
            "hostId": "",
            "addresses": {},
            "accessIPv4": "",
            "accessIPv6": "",
            "key_name": None,
            "config_drive": "",
            "progress": 100 if record.vm_state == "active" else 0,
            "flavor": {"id": record.flavor_id, "links": self._links("flavors", record.flavor_id)},
            "image": {"id": record.image_id, "links": []} if record.image_id else "",
            "security_groups": [{"name": "default"}],
            "links": self._links("servers", record.id),
            "OS-DCF:diskConfig": "MANUAL",
            "OS-EXT-AZ:availability_zone": "nova",
            "OS-EXT-STS:vm_state": record.vm_state,
            "OS-EXT-STS:task_state": record.task_state or None,
            "OS-EXT-STS:power_state": power_state(record),
            "OS-SRV-USG:launched_at": moment(record.launched) if record.launched else None,
            "OS-SRV-USG:terminated_at": None,
            "os-extended-volumes:volumes_attached": [{"id": record.volume_id}],
        }
        if access.is_admin:
            body["OS-EXT-SRV-ATTR:host"] = "localhost"
            body["OS-EXT-SRV-ATTR:hypervisor_hostname"] = "localhost"
            body["OS-EXT-SRV-ATTR:instance_name"] = f"ringfort-{record.id}"
        if record.vm_state == "error":
            body["fault"] = {"code": 500, "created": moment(record.updated), "message": record.message}
        return body

    def _render_flavor(self, one: Flavor) -> dict[str, Any]:
        return {
            "id": one.id,
            "name": one.name,
            "ram": one.memory_mib,
            "disk": one.disk_gib,
            "vcpus": one.vcpus,
            "swap": "",
            "rxtx_factor": 1.0,
            "OS-FLV-EXT-DATA:ephemeral": 0,
            "OS-FLV-DISABLED:disabled": False,
            "os-flavor-access:is_public": True,
            "links": self._links("flavors", one.id),
        }


def _flavor_named(reference: str) -> Flavor:
    """By id, or by a link that ends with it."""
    try:
        return flavor(reference.rpartition("/")[2])
    except NotFound as error:
        raise BadInput(error.message) from error


def _name(body: dict[str, Any]) -> str:
    name = text(body, "name").strip()
    if not name or not name.isprintable():
        raise BadInput("Invalid input for field/attribute name: printable characters, and at least one.")
    return name


def _need(record: ServerRecord, vm_state: str, verb: str) -> None:
    if record.vm_state != vm_state or record.task_state:
        now = record.task_state or record.vm_state
        raise Conflict(f"Cannot '{verb}' instance {record.id} while it is in {now}")

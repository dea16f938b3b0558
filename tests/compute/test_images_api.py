"""The Image API as its clients meet it, over the real image store in RAM; and the agent that imports."""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest
import trio

from blockgw.client.owner import Owner
from blockgw.images.store import MANIFESTS, USES
from compute.images.agent import ImageAgent
from compute.images.api import make_api
from compute.images.records import IMAGES
from compute.images.store import ImageRecords
from ring.errors import Unavailable
from ring.kv.interface import Put
from ring.kv.view import View
from ring.names import Path
from ring.wire.message import BodyBroken, BytesBody
from tests.blockgw.ground import BrokenBody, Caller, Ground

RAW = {"disk_format": "raw", "container_format": "bare"}
ID = "aaaaaaaa-bbbb-4ccc-8ddd-eeeeeeeeeeee"


@dataclass(slots=True)
class Glance:
    ground: Ground
    records: ImageRecords
    agent: ImageAgent
    ann: Caller
    bob: Caller
    root: Caller
    nobody: Caller
    lines: list[tuple[str, str]] = field(default_factory=list)

    async def image(self, who: Caller | None = None, data: bytes | None = None, **given: Any) -> str:
        created = await (who or self.ann)("POST", "/v2/images", {"name": "disk", **RAW, **given}, expect=201)
        image_id: str = created.json["id"]
        if data is not None:
            await (who or self.ann)("PUT", f"/v2/images/{image_id}/file", data, expect=204)
        return image_id

    async def status(self, image_id: str) -> str:
        shown: dict[str, str] = (await self.root("GET", f"/v2/images/{image_id}", expect=200)).json
        return shown["status"]


ME = Owner("now", 0, 2)


@pytest.fixture
async def glance(autojump_clock: trio.testing.MockClock) -> AsyncIterator[Glance]:
    ground = Ground()
    records = ImageRecords(ground.world, ground.kv, View(ground.kv, IMAGES))
    lines: list[tuple[str, str]] = []
    agent = ImageAgent(
        records, ground.images, ground.objects, me=ME, workers=1, log=lambda event, detail: lines.append((event, detail))
    )
    api = make_api(
        ground.world,
        records,
        ground.images,
        ground.objects,
        ground.identity,
        public_url="http://c/image",
        auth_url="http://c/identity",
        uploader=ME,
    )
    ann, bob, root, nobody = (Caller(api, token) for token in ("token-ann", "token-bob", "token-root", ""))
    async with trio.open_nursery() as nursery:
        await nursery.start(records.view.run)
        nursery.start_soon(agent.run)
        yield Glance(ground, records, agent, ann, bob, root, nobody, lines)
        nursery.cancel_scope.cancel()


async def test_versions(glance: Glance, autojump_clock: trio.testing.MockClock) -> None:
    assert (await glance.nobody("GET", "/", expect=300)).json["versions"][0]["status"] == "CURRENT"
    for path in ("/versions", "/v2", "/v2/"):
        await glance.nobody("GET", path, expect=200)
    await glance.nobody("GET", "/v2/images", expect=401)


async def test_create_upload_show_download_delete(glance: Glance, autojump_clock: trio.testing.MockClock) -> None:
    created = await glance.ann("POST", "/v2/images", {"name": "disk", **RAW, "os_distro": "debian"}, expect=201)
    image_id = created.json["id"]
    assert created.json["status"] == "queued" and created.headers.get("location") == f"/v2/images/{image_id}"
    assert (await glance.ann("GET", f"/v2/images/{image_id}/file", expect=204)).body == b""
    data = bytes(range(256)) * 100
    await glance.ann("PUT", f"/v2/images/{image_id}/file", data, expect=204)
    shown = (await glance.ann("GET", f"/v2/images/{image_id}", expect=200)).json
    wanted = {
        "status": "active",
        "size": len(data),
        "virtual_size": len(data),
        "checksum": hashlib.md5(data).hexdigest(),
        "os_hash_algo": "sha512",
        "os_hash_value": hashlib.sha512(data).hexdigest(),
        "os_distro": "debian",
    }
    assert {name: shown[name] for name in wanted} == wanted
    found = await glance.ann("GET", f"/v2/images/{image_id}/file", expect=200)
    assert found.body == data and found.headers.get("content-md5") == wanted["checksum"]
    again = await glance.ann("PUT", f"/v2/images/{image_id}/file", b"other", expect=409)
    assert again.headers.get("content-type").startswith("text/html")
    await glance.ann("DELETE", f"/v2/images/{image_id}", expect=204)
    await glance.ann("GET", f"/v2/images/{image_id}", expect=404)
    assert await glance.ground.kv.range(MANIFESTS) == []


async def test_an_id_of_the_clients_choice(glance: Glance, autojump_clock: trio.testing.MockClock) -> None:
    assert (await glance.ann("POST", "/v2/images", {"id": ID}, expect=201)).json["id"] == ID
    await glance.bob("POST", "/v2/images", {"id": ID}, expect=409)
    for bad in ("x", ID.upper(), ID[:-1], "../" * 12, 3, [ID]):
        await glance.ann("POST", "/v2/images", {"id": bad}, expect=400)


async def test_an_upload_that_breaks_can_be_done_again(glance: Glance, autojump_clock: trio.testing.MockClock) -> None:
    image_id = await glance.image()
    await glance.ann("PUT", f"/v2/images/{image_id}/file", BrokenBody(b"half", BodyBroken("the client went away")), expect=400)
    assert await glance.status(image_id) == "queued"
    glance.ground.storage.fail_next = [Unavailable("no quorum")]
    await glance.ann("PUT", f"/v2/images/{image_id}/file", b"whole", expect=503)
    assert await glance.status(image_id) == "queued"
    await glance.ann("PUT", f"/v2/images/{image_id}/file", b"whole", expect=204)
    assert (await glance.ann("GET", f"/v2/images/{image_id}/file")).body == b"whole"


async def test_deleted_during_the_upload(glance: Glance, autojump_clock: trio.testing.MockClock) -> None:
    image_id = await glance.image()

    class Deleting(BytesBody):
        async def read(self, max_bytes: int = 1 << 20) -> bytes:
            if self._at == 0:
                await glance.ann("DELETE", f"/v2/images/{image_id}", expect=204)
            return await super().read(max_bytes)

    answer = await glance.ann("PUT", f"/v2/images/{image_id}/file", Deleting(b"data"))
    assert answer.status == 404
    assert await glance.ground.kv.range("blockgw/") == [] and await glance.ground.kv.range(IMAGES) == []


async def test_formats_first(glance: Glance, autojump_clock: trio.testing.MockClock) -> None:
    image_id = (await glance.ann("POST", "/v2/images", {"name": "x"}, expect=201)).json["id"]
    await glance.ann("PUT", f"/v2/images/{image_id}/file", b"data", expect=400)
    patch = [
        {"op": "replace", "path": "/disk_format", "value": "raw"},
        {"op": "replace", "path": "/container_format", "value": "bare"},
    ]
    await glance.ann("PATCH", f"/v2/images/{image_id}", patch, expect=200)
    await glance.ann("PUT", f"/v2/images/{image_id}/file", b"data", expect=204)
    await glance.ann("PATCH", f"/v2/images/{image_id}", [{"op": "replace", "path": "/disk_format", "value": "iso"}], expect=403)
    await glance.ann("PATCH", f"/v2/images/{image_id}", [{"op": "replace", "path": "/name", "value": "y"}], expect=200)


async def test_what_others_may_do(glance: Glance, autojump_clock: trio.testing.MockClock) -> None:
    private = await glance.image(data=b"secret")
    community = await glance.image(visibility="community", data=b"open")
    for method, path, body in (
        ("GET", f"/v2/images/{private}", b""),
        ("GET", f"/v2/images/{private}/file", b""),
        ("PATCH", f"/v2/images/{private}", b"[]"),
        ("DELETE", f"/v2/images/{private}", b""),
    ):
        await glance.bob(method, path, body, expect=404)
    assert (await glance.bob("GET", f"/v2/images/{community}/file", expect=200)).body == b"open"
    await glance.bob("DELETE", f"/v2/images/{community}", expect=403)
    await glance.bob("PUT", f"/v2/images/{community}/file", b"x", expect=403)
    await glance.bob("PATCH", f"/v2/images/{community}", [{"op": "replace", "path": "/name", "value": "x"}], expect=403)
    await glance.ann("POST", "/v2/images", {"visibility": "public"}, expect=403)
    await glance.ann("PATCH", f"/v2/images/{private}", [{"op": "replace", "path": "/visibility", "value": "public"}], expect=403)
    await glance.ann("POST", "/v2/images", {"owner": "p2"}, expect=403)
    assert (await glance.root("POST", "/v2/images", {"owner": "p2", "visibility": "public"}, expect=201)).json["owner"] == "p2"
    await glance.root("POST", "/v2/images", {"owner": ["p2"]}, expect=400)
    assert [one["id"] for one in (await glance.bob("GET", "/v2/images")).json["images"] if one["owner"] == "p1"] == []
    assert (await glance.bob("GET", "/v2/images?visibility=community")).json["images"][0]["id"] == community


async def test_protected_and_used_images_stay(glance: Glance, autojump_clock: trio.testing.MockClock) -> None:
    image_id = await glance.image(protected=True, data=b"data")
    await glance.ann("DELETE", f"/v2/images/{image_id}", expect=403)
    await glance.ann("PATCH", f"/v2/images/{image_id}", [{"op": "replace", "path": "/protected", "value": False}], expect=200)
    await glance.ground.kv.transact([], [Put(f"{USES}{image_id}/volume", b"")])
    refused = await glance.ann("DELETE", f"/v2/images/{image_id}", expect=409)
    assert b"in use" in refused.body
    assert (await glance.ann("GET", f"/v2/images/{image_id}/file", expect=200)).body == b"data"


async def test_lists(glance: Glance, autojump_clock: trio.testing.MockClock) -> None:
    ids = []
    for name in ("c", "a", "b"):
        ids.append(await glance.image(name=name))
        await trio.sleep(1)
    hidden = await glance.image(name="hidden", os_hidden=True)

    async def names(query: str) -> list[str]:
        return [one["name"] for one in (await glance.ann("GET", f"/v2/images?{query}", expect=200)).json["images"]]

    assert await names("") == ["b", "a", "c"]
    assert await names("sort=name:asc") == ["a", "b", "c"] and await names("sort_key=name&sort_dir=desc") == ["c", "b", "a"]
    assert await names("name=a") == ["a"] and await names("name=in:a,b") == ["b", "a"] and await names(f"id={ids[0]}") == ["c"]
    assert await names("os_hidden=true") == ["hidden"] and hidden not in ids
    first = (await glance.ann("GET", "/v2/images?limit=2&disk_format=raw")).json
    assert [one["name"] for one in first["images"]] == ["b", "a"]
    second = (await glance.ann("GET", first["next"], expect=200)).json
    assert "disk_format=raw" in first["next"] and [one["name"] for one in second["images"]] == ["c"] and "next" not in second
    for query in ("limit=x", "limit=-1", "limit=%C2%B2", "limit=" + "9" * 5000, "marker=none", "name=%zz"):
        await glance.ann("GET", f"/v2/images?{query}", expect=400)


@pytest.mark.parametrize(
    "method, path, body, status",
    [
        ("POST", "/v2/images", b"", 400),
        ("POST", "/v2/images", b"{", 400),
        ("POST", "/v2/images", b"[]", 400),
        ("POST", "/v2/images", b"[" * 100_000, 400),
        ("POST", "/v2/images", b'{"name": "\xff"}', 400),
        ("POST", "/v2/images", b'{"min_disk": 1' + b"0" * 30 + b"}", 400),
        ("POST", "/v2/images", b'{"name": "' + b"x" * (1 << 20) + b'"}', 413),
        ("PATCH", "/v2/images/ID", b"{}", 400),
        ("PATCH", "/v2/images/ID", b"[" * 100_000, 400),
        ("PATCH", "/v2/images/ID", b'[{"op": "replace"}]', 400),
        ("PATCH", "/v2/images/ID", b"\xff", 400),
        ("POST", "/v2/images/ID/import", b"{}", 400),
        ("POST", "/v2/images/ID/import", b'{"method": {"name": "glance-direct"}}', 400),
        ("POST", "/v2/images/ID/import", b'{"method": {"name": "web-download"}}', 400),
        ("POST", "/v2/images/ID/import", b'{"method": {"name": "web-download", "uri": "http://169.254.169.254/"}}', 400),
        ("POST", "/v2/images/ID/import", b'{"method": {"name": "web-download", "uri": "file:///etc/passwd"}}', 400),
        ("POST", "/v2/images/ID/import", b'{"method": {"name": "web-download", "uri": "s3://none/key"}}', 400),
        ("POST", "/v2/images/ID/import", b'{"method": {"name": "web-download", "uri": "swift://a"}}', 400),
        ("POST", "/v2/images/ID/import", b'{"method": {"name": ["x"]}}', 400),
        ("GET", "/v2/images/%2e%2e%2fusers", b"", 404),
        ("GET", "/v2/images/%zz", b"", 400),
        ("DELETE", "/v2/images", b"", 405),
    ],
    ids=lambda value: repr(value)[:50],
)
async def test_hostile_requests(
    glance: Glance, method: str, path: str, body: bytes, status: int, autojump_clock: trio.testing.MockClock
) -> None:
    image_id = await glance.image()
    await glance.ann(method, path.replace("ID", image_id), body, expect=status)
    assert await glance.status(image_id) == "queued"


async def test_messages_are_escaped(glance: Glance, autojump_clock: trio.testing.MockClock) -> None:
    answer = await glance.ann("POST", "/v2/images", {"disk_format": "<script>"}, expect=400)
    assert b"<script>" not in answer.body and b"&lt;script&gt;" in answer.body


# ---- imports


async def start_import(glance: Glance, uri: str, image_id: str = "") -> str:
    image_id = image_id or await glance.image()
    body = {"method": {"name": "web-download", "uri": uri}}
    await glance.ann("POST", f"/v2/images/{image_id}/import", body, expect=202)
    return image_id


async def test_an_import_copies_an_object(glance: Glance, autojump_clock: trio.testing.MockClock) -> None:
    data = b"disk" * 1000
    await glance.ground.put(Path("AUTH_p1", "disks", "a/b.img"), data)
    image_id = await start_import(glance, "swift://disks/a/b.img")
    await trio.sleep(1)
    shown = (await glance.ann("GET", f"/v2/images/{image_id}")).json
    assert (shown["status"], shown["size"], shown["import_bytes"]) == ("active", len(data), str(len(data)))
    assert (await glance.ann("GET", f"/v2/images/{image_id}/file")).body == data
    await glance.ann(
        "POST", f"/v2/images/{image_id}/import", {"method": {"name": "web-download", "uri": "swift://d/x"}}, expect=409
    )


async def test_an_import_by_bucket_name(glance: Glance, autojump_clock: trio.testing.MockClock) -> None:
    glance.ground.objects.buckets["disks", "p1"] = Path("AUTH_p1", "the-bucket")
    await glance.ground.put(Path("AUTH_p1", "the-bucket", "b.img"), b"disk")
    image_id = await start_import(glance, "s3://disks/b.img")
    await trio.sleep(1)
    assert await glance.status(image_id) == "active"


async def test_an_import_of_nothing_says_so_and_may_be_asked_again(glance: Glance, autojump_clock: trio.testing.MockClock) -> None:
    image_id = await start_import(glance, "swift://disks/none")
    await trio.sleep(1)
    shown = (await glance.ann("GET", f"/v2/images/{image_id}")).json
    assert shown["status"] == "queued" and "does not exist" in shown["import_message"]
    await glance.ground.put(Path("AUTH_p1", "disks", "none"), b"disk")
    await start_import(glance, "swift://disks/none", image_id)
    await trio.sleep(1)
    shown = (await glance.ann("GET", f"/v2/images/{image_id}")).json
    assert shown["status"] == "active" and "import_message" not in shown


async def test_an_import_waits_for_storage(glance: Glance, autojump_clock: trio.testing.MockClock) -> None:
    await glance.ground.put(Path("AUTH_p1", "disks", "x"), b"disk")
    glance.ground.storage.fail_next = [Unavailable("no quorum")] * 2
    image_id = await start_import(glance, "swift://disks/x")
    await trio.sleep(3)
    assert await glance.status(image_id) == "importing"
    await trio.sleep(30)
    assert await glance.status(image_id) == "active"
    assert [event for event, _ in glance.lines] == ["image-import-retry", "image-import-retry", "image-imported"]


async def test_an_import_whose_record_was_not_written_before_the_crash(
    glance: Glance, autojump_clock: trio.testing.MockClock
) -> None:
    """The data is there, its record says importing: the next run only writes the record."""
    await glance.ground.put(Path("AUTH_p1", "disks", "x"), b"disk")
    image_id = await glance.image()
    await glance.ground.images.copy(image_id, Path("AUTH_p1", "disks", "x"))
    await start_import(glance, "swift://disks/x", image_id)
    await trio.sleep(1)
    assert await glance.status(image_id) == "active"


async def test_an_image_deleted_during_its_import(glance: Glance, autojump_clock: trio.testing.MockClock) -> None:
    image_id = await glance.image()

    class Deleting:
        async def read(self, path: Path, *, offset: int = 0, length: int | None = None) -> Any:
            await glance.ann("DELETE", f"/v2/images/{image_id}", expect=204)
            return await glance.ground.storage.get_object(path)

    await glance.ground.put(Path("AUTH_p1", "disks", "x"), b"disk")
    glance.ground.images._objects = Deleting()  # type: ignore[assignment]  # only read is asked of it
    await start_import(glance, "swift://disks/x", image_id)
    await trio.sleep(1)
    assert await glance.ground.kv.range("blockgw/") == [] and await glance.ground.kv.range(IMAGES) == []
    await glance.ground.put(Path("AUTH_p1", "disks", "y"), b"disk")  # and the agent still works


async def test_usable(glance: Glance, autojump_clock: trio.testing.MockClock) -> None:
    queued = await glance.image()
    active = await glance.image(data=b"x")
    ann, bob = (glance.ground.identity.tokens[f"token-{name}"] for name in ("ann", "bob"))
    assert [glance.records.usable(who, one) for who in (ann, bob) for one in (queued, active, "none")] == [
        False,
        True,
        False,
        False,
        False,
        False,
    ]
    assert json.loads((await glance.ann("GET", f"/v2/images/{active}")).body)["name"] == "disk"


@pytest.mark.parametrize(
    "uploader, later",
    [
        (Owner("before", 3, 9), "queued"),  # of an earlier start of the cloud
        (Owner("now", 0, 1), "queued"),  # an earlier incarnation of this worker
        (ME, "saving"),  # this worker, at it
        (Owner("now", 1, 1), "saving"),  # another worker of this start: its own affair
    ],
)
async def test_an_upload_that_a_crash_cut_off_is_given_back(
    glance: Glance, autojump_clock: trio.testing.MockClock, uploader: Owner, later: str
) -> None:
    image_id = await glance.image()
    await glance.records.change(image_id, lambda old: msgspec.structs.replace(old, status="saving", uploader=str(uploader)))
    await trio.testing.wait_all_tasks_blocked()
    await trio.sleep(10)
    assert await glance.status(image_id) == later

"""The Block Storage API as its clients meet it, over volumes in RAM."""

from __future__ import annotations

import json
from dataclasses import dataclass

import pytest
import trio

from blockgw.api.app import make_api
from blockgw.client.fake import FakeVolumes
from blockgw.client.interface import VolumeStatus
from identity.client.interface import Access
from tests.blockgw.ground import Caller, Ground

IMAGE = "11111111-2222-4333-8444-555555555555"
SECRET_IMAGE = "66666666-2222-4333-8444-555555555555"


@dataclass(slots=True)
class Api:
    volumes: FakeVolumes
    ann: Caller
    bob: Caller
    root: Caller
    nobody: Caller


@pytest.fixture
def api(autojump_clock: trio.testing.MockClock) -> Api:
    ground = Ground()
    volumes = FakeVolumes(ground.world)

    def may_use_image(access: Access, image_id: str) -> bool:
        return image_id == IMAGE or access.is_admin

    handler = make_api(
        volumes, ground.identity, public_url="http://c/volume", auth_url="http://c/identity", may_use_image=may_use_image
    )
    callers = [Caller(handler, token) for token in ("token-ann", "token-bob", "token-root", "")]
    return Api(volumes, *callers)


async def test_versions_need_no_token_all_else_does(api: Api, autojump_clock: trio.testing.MockClock) -> None:
    for path, status in (("/", 300), ("/v3", 200), ("/v3/", 200)):
        answer = await api.nobody("GET", path, expect=status)
        assert answer.json["versions"][0]["links"][0]["href"] == "http://c/volume/v3/"
    refused = await api.nobody("GET", "/v3/p1/volumes", expect=401)
    assert refused.headers.get("www-authenticate") == 'Keystone uri="http://c/identity"'


async def test_the_life_of_a_volume(api: Api, autojump_clock: trio.testing.MockClock) -> None:
    created = await api.ann(
        "POST",
        "/v3/p1/volumes",
        {"volume": {"size": 2, "name": "data", "description": "mine", "metadata": {"k": "v"}, "imageRef": IMAGE}},
        expect=202,
    )
    volume = created.json["volume"]
    volume_id = volume["id"]
    assert {key: volume[key] for key in ("name", "description", "size", "status", "bootable", "metadata")} == {
        "name": "data",
        "description": "mine",
        "size": 2,
        "status": "available",
        "bootable": "true",
        "metadata": {"k": "v"},
    }
    assert volume["volume_image_metadata"] == {"image_id": IMAGE}
    assert volume["links"] == [{"rel": "self", "href": f"http://c/volume/v3/p1/volumes/{volume_id}"}]

    assert (await api.ann("GET", f"/v3/p1/volumes/{volume_id}", expect=200)).json["volume"] == volume
    renamed = await api.ann("PUT", f"/v3/p1/volumes/{volume_id}", {"volume": {"name": "new"}}, expect=200)
    assert (renamed.json["volume"]["name"], renamed.json["volume"]["description"]) == ("new", "mine")

    await api.volumes.attach(volume_id, server_id="s1", device="/dev/vda")
    shown = (await api.ann("GET", f"/v3/p1/volumes/{volume_id}")).json["volume"]
    assert shown["status"] == "in-use" and shown["attachments"][0]["server_id"] == "s1"
    refused = await api.ann("DELETE", f"/v3/p1/volumes/{volume_id}", expect=400)
    assert refused.json["badRequest"]["message"].startswith("Invalid volume: Volume status must be available or error")
    await api.volumes.detach(volume_id, server_id="s1")
    assert (await api.ann("DELETE", f"/v3/p1/volumes/{volume_id}", expect=202)).body == b""
    gone = await api.ann("GET", f"/v3/p1/volumes/{volume_id}", expect=404)
    assert gone.json == {"itemNotFound": {"code": 404, "message": f"Volume {volume_id} could not be found."}}


async def test_projects_see_their_own(api: Api, autojump_clock: trio.testing.MockClock) -> None:
    mine = (await api.ann("POST", "/v3/p1/volumes", {"volume": {"size": 1}}, expect=202)).json["volume"]["id"]
    for method, target, body in (
        ("GET", f"/v3/p2/volumes/{mine}", b""),
        ("DELETE", f"/v3/p2/volumes/{mine}", b""),
        ("PUT", f"/v3/p2/volumes/{mine}", {"volume": {"name": "stolen"}}),
    ):
        await api.bob(method, target, body, expect=404)
    assert (await api.bob("GET", "/v3/p1/volumes", expect=400)).json["badRequest"]["message"].startswith("Malformed request url")
    assert (await api.bob("GET", "/v3/p2/volumes/detail", expect=200)).json == {"volumes": []}
    await api.bob("GET", "/v3/p2/volumes?all_tenants=1", expect=403)
    everyones = (await api.root("GET", "/v3/adm/volumes/detail?all_tenants=1", expect=200)).json["volumes"]
    assert [(one["id"], one["os-vol-tenant-attr:tenant_id"]) for one in everyones] == [(mine, "p1")]


async def test_an_image_must_be_visible_to_the_caller(api: Api, autojump_clock: trio.testing.MockClock) -> None:
    body = {"volume": {"size": 1, "imageRef": SECRET_IMAGE}}
    refused = await api.ann("POST", "/v3/p1/volumes", body, expect=400)
    assert refused.json["badRequest"]["message"] == "Invalid image identifier or unable to access requested image."
    await api.root("POST", "/v3/adm/volumes", body, expect=202)


async def test_pages_and_filters(api: Api, autojump_clock: trio.testing.MockClock) -> None:
    for number in range(5):
        await api.ann("POST", "/v3/p1/volumes", {"volume": {"size": 1, "name": f"v{number}"}}, expect=202)
        await trio.sleep(1)

    async def names(query: str) -> list[str]:
        return [one["name"] for one in (await api.ann("GET", f"/v3/p1/volumes?{query}", expect=200)).json["volumes"]]

    assert await names("") == ["v4", "v3", "v2", "v1", "v0"]
    assert await names("name=v2") == ["v2"] and await names("status=available&limit=1") == ["v4"]
    assert await names("status=error") == [] and await names("limit=0") == []
    marker = (await api.ann("GET", "/v3/p1/volumes?name=v3")).json["volumes"][0]["id"]
    assert await names(f"limit=2&marker={marker}") == ["v2", "v1"]
    for query in ("limit=x", "limit=-1", "limit=²", "limit=" + "9" * 5000, "marker=none"):
        await api.ann("GET", f"/v3/p1/volumes?{query}", expect=400)


NO_SIZES: list[object] = [None, "", "x", "²", "1" * 5000, True, 1.5, 0, -1, 65_537, 10**30, [1], {}]
NO_NAMES: list[object] = [1, [], "x" * 256]
HOSTILE: list[object] = [
    b"",
    b"{",
    b"\xff\xfe",
    b"[" * 100_000,
    [],
    {"volume": None},
    {"volume": []},
    {"volume": {}},
    *({"volume": {"size": size}} for size in NO_SIZES),
    *({"volume": {"size": 1, "name": name}} for name in NO_NAMES),
    *({"volume": {"size": 1, "metadata": metadata}} for metadata in ([1], "x", {"a": 1}, {"a": None})),
    *({"volume": {"size": 1, name: "x"}} for name in ("snapshot_id", "source_volid", "backup_id", "consistencygroup_id")),
    {"volume": {"size": 1, "volume_type": "lvm"}},
    {"volume": {"size": 1, "volume_type": ["x"]}},
    {"volume": {"size": 1, "imageRef": {"a": 1}}},
    {"volume": {"size": 1, "imageRef": "../" * 80}},
    b'{"volume": {"size": 1, "name": "\\ud800"}}',
]


@pytest.mark.parametrize("body", HOSTILE, ids=lambda body: repr(body)[:40])
async def test_hostile_bodies_are_400_and_make_nothing(api: Api, body: object, autojump_clock: trio.testing.MockClock) -> None:
    answer = await api.ann("POST", "/v3/p1/volumes", body, expect=400)
    assert json.loads(answer.body)["badRequest"]["code"] == 400
    assert api.volumes.volumes == {}


async def test_types_and_what_there_is_none_of(api: Api, autojump_clock: trio.testing.MockClock) -> None:
    [kind] = (await api.ann("GET", "/v3/p1/types", expect=200)).json["volume_types"]
    assert (await api.ann("GET", f"/v3/p1/types/{kind['id']}", expect=200)).json["volume_type"] == kind
    assert (await api.ann("GET", "/v3/p1/types/default", expect=200)).json["volume_type"] == kind
    await api.ann("GET", "/v3/p1/types/none", expect=404)
    assert (await api.ann("GET", "/v3/p1/snapshots/detail", expect=200)).json == {"snapshots": []}
    assert (await api.ann("GET", "/v3/p1/backups", expect=200)).json == {"backups": []}
    for method, path, status in (("GET", "/v3/p1/nothing", 404), ("PATCH", "/v3/p1/volumes", 405), ("GET", "/v3/%zz/volumes", 400)):
        await api.ann(method, path, expect=status)


async def test_a_volume_in_error_shows_it(api: Api, autojump_clock: trio.testing.MockClock) -> None:
    api.volumes.hold = True
    volume_id = (await api.ann("POST", "/v3/p1/volumes", {"volume": {"size": 1}}, expect=202)).json["volume"]["id"]
    assert (await api.ann("GET", f"/v3/p1/volumes/{volume_id}")).json["volume"]["status"] == VolumeStatus.CREATING.value
    api.volumes.finish(volume_id, error="no space")
    assert (await api.ann("GET", f"/v3/p1/volumes/{volume_id}")).json["volume"]["status"] == "error"
    await api.ann("DELETE", f"/v3/p1/volumes/{volume_id}", expect=202)

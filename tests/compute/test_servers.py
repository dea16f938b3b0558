"""Servers from the call to the guest: the Compute API, and the agent over a hypervisor and volumes in RAM."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import pytest
import trio

from blockgw.client.fake import FakeVolumes
from blockgw.client.interface import VolumeStatus
from blockgw.client.owner import Owner
from compute.hypervisor.fake import FakeHypervisor
from compute.hypervisor.interface import GuestState
from compute.images.records import IMAGES, ImageRecord
from compute.images.store import ImageRecords
from compute.servers.agent import AGENT_KEY, GUESTS_STARTING_MAX, LEASE_S, SHUTDOWN_GRACE_S, ComputeAgent
from compute.servers.api import make_api
from compute.servers.flavors import FLAVORS
from compute.servers.records import SERVERS
from compute.servers.store import ServerRecords
from ring.errors import Unavailable
from ring.kv.interface import Put
from ring.kv.view import View
from tests.blockgw.ground import Caller, Ground

GIB = 1 << 30
ME = Owner("cloud", 0, 1)
IMAGE = "11111111-2222-4333-8444-555555555555"
PRIVATE = "22222222-2222-4333-8444-555555555555"
QUEUED = "33333333-2222-4333-8444-555555555555"
LARGE = "44444444-2222-4333-8444-555555555555"
NONE = "99999999-2222-4333-8444-555555555555"


@dataclass(slots=True)
class Nova:
    ground: Ground
    volumes: FakeVolumes
    hypervisor: FakeHypervisor
    records: ServerRecords
    ann: Caller
    bob: Caller
    root: Caller
    nobody: Caller
    lines: list[tuple[str, str]] = field(default_factory=list)

    async def boot(self, **given: Any) -> str:
        body = {"server": {"name": "web", "flavorRef": "1", "imageRef": IMAGE, **given}}
        server_id: str = (await self.ann("POST", "/v2.1/servers", body, expect=202)).json["server"]["id"]
        return server_id

    async def active(self, **given: Any) -> str:
        server_id = await self.boot(**given)
        await self.until(server_id, "ACTIVE")
        return server_id

    async def show(self, server_id: str) -> Any:
        return (await self.root("GET", f"/v2.1/servers/{server_id}", expect=200)).json["server"]

    async def until(self, server_id: str, status: str, *, timeout_s: float = 60) -> None:
        with trio.fail_after(timeout_s):
            while (await self.show(server_id))["status"] != status:
                await trio.sleep(1)

    async def act(self, server_id: str, body: object, *, expect: int = 202) -> Any:
        return await self.ann("POST", f"/v2.1/servers/{server_id}/action", body, expect=expect)

    async def holder(self) -> str:
        entry = await self.ground.kv.get(AGENT_KEY)
        return "" if entry is None else entry.value.decode()

    def guest(self, server_id: str) -> GuestState:
        return self.hypervisor.states.get(UUID(server_id), GuestState.ABSENT)

    def agent(self, me: Owner) -> ComputeAgent:
        def log(event: str, detail: str) -> None:
            self.lines.append((event, detail))

        return ComputeAgent(self.ground.world, self.ground.kv, self.records, self.volumes, self.hypervisor, me=me, log=log)


@pytest.fixture
async def nova(autojump_clock: trio.testing.MockClock) -> AsyncIterator[Nova]:
    ground = Ground()
    volumes, hypervisor = FakeVolumes(ground.world), FakeHypervisor()
    records = ServerRecords(ground.world, ground.kv, View(ground.kv, SERVERS))
    images = ImageRecords(ground.world, ground.kv, View(ground.kv, IMAGES))
    api = make_api(
        ground.world,
        records,
        images,
        volumes,
        hypervisor,
        ground.identity,
        public_url="http://c/compute",
        auth_url="http://c/identity",
    )
    ann, bob, root, nobody = (Caller(api, f"token-{who}") for who in ("ann", "bob", "root", ""))
    nova = Nova(ground, volumes, hypervisor, records, ann, bob, root, nobody)
    async with trio.open_nursery() as nursery:
        await nursery.start(records.view.run)
        await nursery.start(images.view.run)
        for image_id, owner, status, size in (
            (IMAGE, "p1", "active", 1000),
            (PRIVATE, "p2", "active", 1000),
            (QUEUED, "p1", "queued", None),
            (LARGE, "p1", "active", GIB + 1),
        ):
            await images.create(
                ImageRecord(id=image_id, owner=owner, status=status, size=size, virtual_size=size, created=0.0, updated=0.0)
            )
        nursery.start_soon(nova.agent(ME).run)
        yield nova
        nursery.cancel_scope.cancel()


async def test_versions(nova: Nova, autojump_clock: trio.testing.MockClock) -> None:
    assert (await nova.nobody("GET", "/", expect=300)).json["versions"][0]["id"] == "v2.1"
    for path in ("/v2.1", "/v2.1/"):
        assert (await nova.nobody("GET", path, expect=200)).json["version"]["version"] == ""
    await nova.nobody("GET", "/v2.1/servers", expect=401)


async def test_the_life_of_a_server(nova: Nova, autojump_clock: trio.testing.MockClock) -> None:
    created = await nova.ann(
        "POST",
        "/v2.1/servers",
        {"server": {"name": "web", "flavorRef": "1", "imageRef": IMAGE, "metadata": {"k": "v"}, "networks": "none"}},
        expect=202,
    )
    server_id = created.json["server"]["id"]
    assert created.headers.get("location") == f"http://c/compute/v2.1/servers/{server_id}"
    assert (await nova.show(server_id))["status"] == "BUILD"
    await nova.until(server_id, "ACTIVE")
    shown = await nova.show(server_id)
    assert (shown["OS-EXT-STS:power_state"], shown["OS-EXT-STS:task_state"], shown["metadata"]) == (1, None, {"k": "v"})
    [volume] = nova.volumes.volumes.values()
    assert (volume.status, volume.server_id, volume.image_id, volume.size_gib) == (VolumeStatus.IN_USE, server_id, IMAGE, 1)
    assert shown["os-extended-volumes:volumes_attached"] == [{"id": volume.id}]
    spec = nova.hypervisor.specs[UUID(server_id)]
    assert (spec.name, spec.vcpus, spec.memory_mib, spec.disk.iqn.endswith(volume.id)) == ("web", 1, 256, True)

    nova.hypervisor.consoles[UUID(server_id)] = b"one\r\ntwo\nthr\xffee"
    for length, output in (
        (None, "one\ntwo\nthr\ufffdee"),
        (2, "two\nthr\ufffdee"),
        ("1", "thr\ufffdee"),
        (0, ""),
        (-1, "one\ntwo\nthr\ufffdee"),
    ):
        answer = await nova.act(server_id, {"os-getConsoleOutput": {"length": length}}, expect=200)
        assert answer.json == {"output": output}

    await nova.act(server_id, {"os-stop": None})
    await nova.until(server_id, "SHUTOFF")
    assert nova.guest(server_id) is GuestState.SHUTOFF
    await nova.act(server_id, {"os-stop": None}, expect=409)
    await nova.act(server_id, {"os-start": None})
    await nova.until(server_id, "ACTIVE")
    assert nova.guest(server_id) is GuestState.RUNNING

    await nova.ann("DELETE", f"/v2.1/servers/{server_id}", expect=204)
    await trio.sleep(5)
    await nova.ann("GET", f"/v2.1/servers/{server_id}", expect=404)
    assert nova.volumes.volumes == {} and nova.hypervisor.specs == {} and await nova.ground.kv.range(SERVERS) == []


async def test_a_guest_that_does_not_obey_is_unplugged(nova: Nova, autojump_clock: trio.testing.MockClock) -> None:
    server_id = await nova.active()
    nova.hypervisor.obeys_power_button = False
    await nova.act(server_id, {"os-stop": None})
    await trio.sleep(SHUTDOWN_GRACE_S - 5)
    assert nova.guest(server_id) is GuestState.RUNNING
    await nova.until(server_id, "SHUTOFF", timeout_s=30)
    assert nova.guest(server_id) is GuestState.SHUTOFF


@pytest.mark.parametrize("state", [GuestState.SHUTOFF, GuestState.CRASHED])
async def test_a_guest_that_stops_by_itself(nova: Nova, state: GuestState, autojump_clock: trio.testing.MockClock) -> None:
    server_id = await nova.active()
    nova.hypervisor.states[UUID(server_id)] = state
    await nova.until(server_id, "SHUTOFF")
    assert (await nova.show(server_id))["OS-EXT-STS:vm_state"] == "stopped"
    await nova.act(server_id, {"os-start": None})
    await nova.until(server_id, "ACTIVE")


async def test_a_guest_that_the_hypervisor_forgot_is_started_again(nova: Nova, autojump_clock: trio.testing.MockClock) -> None:
    server_id = await nova.active()
    del nova.hypervisor.states[UUID(server_id)]
    await trio.sleep(5)
    assert nova.guest(server_id) is GuestState.RUNNING and (await nova.show(server_id))["status"] == "ACTIVE"


async def test_reboot(nova: Nova, autojump_clock: trio.testing.MockClock) -> None:
    server_id = await nova.active()
    nova.hypervisor.specs.clear()
    await nova.act(server_id, {"reboot": {"type": "SOFT"}})
    assert (await nova.show(server_id))["status"] == "HARD_REBOOT"
    await nova.until(server_id, "ACTIVE")
    assert UUID(server_id) in nova.hypervisor.specs  # it was started anew


async def test_a_hypervisor_that_cannot_be_asked_is_asked_again(nova: Nova, autojump_clock: trio.testing.MockClock) -> None:
    nova.hypervisor.fail_next = [Unavailable("libvirt: connection refused")] * 3
    server_id = await nova.boot()
    await nova.until(server_id, "ACTIVE")
    assert [event for event, _ in nova.lines if event == "server-retry"] == ["server-retry"] * 3


async def test_a_volume_that_is_late_is_waited_for(nova: Nova, autojump_clock: trio.testing.MockClock) -> None:
    nova.volumes.hold = True
    server_id = await nova.boot()
    await trio.sleep(30)
    assert (await nova.show(server_id))["status"] == "BUILD"
    [volume_id] = nova.volumes.volumes
    nova.volumes.finish(volume_id)
    await nova.until(server_id, "ACTIVE")


async def test_a_volume_in_error_is_a_server_in_error(nova: Nova, autojump_clock: trio.testing.MockClock) -> None:
    nova.volumes.hold = True
    server_id = await nova.boot()
    [volume_id] = nova.volumes.volumes
    nova.volumes.finish(volume_id, error="no space")
    await nova.until(server_id, "ERROR")
    shown = await nova.show(server_id)
    assert "no space" in shown["fault"]["message"]
    await nova.ann("DELETE", f"/v2.1/servers/{server_id}", expect=204)
    await trio.sleep(5)
    assert nova.volumes.volumes == {}


async def test_one_server_that_fails_does_not_hold_up_the_others(nova: Nova, autojump_clock: trio.testing.MockClock) -> None:
    nova.volumes.hold = True
    stuck = await nova.boot(name="stuck")
    nova.volumes.hold = False
    await nova.active(name="fine")
    assert (await nova.show(stuck))["status"] == "BUILD"


async def test_from_a_volume_that_stays(nova: Nova, autojump_clock: trio.testing.MockClock) -> None:
    volume = await nova.volumes.create(nova.ground.identity.tokens["token-ann"], size_gib=5)
    mapping = {"source_type": "volume", "uuid": volume.id, "boot_index": "0", "destination_type": "volume"}
    server_id = await nova.active(imageRef="", block_device_mapping_v2=[mapping])
    assert nova.volumes.volumes[volume.id].server_id == server_id and len(nova.volumes.volumes) == 1
    attachments = (await nova.ann("GET", f"/v2.1/servers/{server_id}/os-volume_attachments", expect=200)).json
    assert attachments["volumeAttachments"][0]["volumeId"] == volume.id
    refused = await nova.ann(
        "POST", "/v2.1/servers", {"server": {"name": "two", "flavorRef": "1", "block_device_mapping_v2": [mapping]}}, expect=400
    )
    assert "must be available" in refused.json["badRequest"]["message"]
    await nova.ann("DELETE", f"/v2.1/servers/{server_id}", expect=204)
    await trio.sleep(5)
    assert nova.volumes.volumes[volume.id].status is VolumeStatus.AVAILABLE


async def test_two_servers_of_one_volume(nova: Nova, autojump_clock: trio.testing.MockClock) -> None:
    """Both are accepted while it is available; only one gets it."""
    volume = await nova.volumes.create(nova.ground.identity.tokens["token-ann"], size_gib=5)
    mapping = [{"source_type": "volume", "uuid": volume.id, "delete_on_termination": True}]
    ids = [await nova.boot(imageRef="", block_device_mapping_v2=mapping) for _ in range(2)]
    await trio.sleep(20)
    assert sorted([(await nova.show(one))["status"] for one in ids]) == ["ACTIVE", "BUILD"]
    assert [nova.guest(one) for one in ids].count(GuestState.RUNNING) == 1
    loser = next(one for one in ids if nova.guest(one) is GuestState.ABSENT)
    await nova.ann("DELETE", f"/v2.1/servers/{loser}", expect=204)
    await trio.sleep(20)
    assert volume.id in nova.volumes.volumes  # its disk is another's


async def test_a_new_root_volume_by_mapping(nova: Nova, autojump_clock: trio.testing.MockClock) -> None:
    mapping = {"source_type": "image", "uuid": LARGE, "volume_size": "3", "destination_type": "volume"}
    await nova.boot(imageRef="", block_device_mapping_v2=[mapping])
    [volume] = nova.volumes.volumes.values()
    assert (volume.size_gib, volume.image_id) == (3, LARGE)


async def test_what_others_may_do(nova: Nova, autojump_clock: trio.testing.MockClock) -> None:
    server_id = await nova.active()
    for method, path, body in (
        ("GET", "", b""),
        ("DELETE", "", b""),
        ("PUT", "", {"server": {"name": "x"}}),
        ("POST", "/action", {"os-getConsoleOutput": {}}),
        ("POST", "/action", {"os-stop": None}),
        ("GET", "/os-volume_attachments", b""),
    ):
        await nova.bob(method, f"/v2.1/servers/{server_id}{path}", body, expect=404)
    assert (await nova.bob("GET", "/v2.1/servers/detail?all_tenants=1")).json == {"servers": []}
    [seen] = (await nova.root("GET", "/v2.1/servers/detail?all_tenants=1")).json["servers"]
    assert seen["OS-EXT-SRV-ATTR:instance_name"] == f"ringfort-{server_id}"
    assert "OS-EXT-SRV-ATTR:host" not in (await nova.ann("GET", f"/v2.1/servers/{server_id}")).json["server"]
    volume = await nova.volumes.create(nova.ground.identity.tokens["token-bob"], size_gib=1)
    mapping = [{"source_type": "volume", "uuid": volume.id}]
    await nova.ann(
        "POST", "/v2.1/servers", {"server": {"name": "x", "flavorRef": "1", "block_device_mapping_v2": mapping}}, expect=404
    )


async def test_lists_and_names(nova: Nova, autojump_clock: trio.testing.MockClock) -> None:
    ids = []
    for name in ("a", "b", "c"):
        ids.append(await nova.boot(name=name))
        await trio.sleep(1)

    async def names(query: str) -> list[str]:
        return [one["name"] for one in (await nova.ann("GET", f"/v2.1/servers?{query}", expect=200)).json["servers"]]

    assert await names("") == ["c", "b", "a"] and await names("limit=1") == ["c"] and await names("name=b") == ["b"]
    assert await names(f"marker={ids[1]}") == ["a"] and await names("status=error") == []
    renamed = await nova.ann("PUT", f"/v2.1/servers/{ids[0]}", {"server": {"name": " z "}}, expect=200)
    assert renamed.json["server"]["name"] == "z"
    for query in ("limit=x", "limit=-1", "limit=%C2%B2", "marker=none"):
        await nova.ann("GET", f"/v2.1/servers?{query}", expect=400)


async def test_flavors(nova: Nova, autojump_clock: trio.testing.MockClock) -> None:
    assert [one["name"] for one in (await nova.ann("GET", "/v2.1/flavors", expect=200)).json["flavors"]] == [
        one.name for one in FLAVORS
    ]
    detail = (await nova.ann("GET", "/v2.1/flavors/detail", expect=200)).json["flavors"][1]
    assert (detail["id"], detail["ram"], detail["disk"], detail["vcpus"]) == ("2", 1024, 10, 1)
    assert (await nova.ann("GET", "/v2.1/flavors/2", expect=200)).json["flavor"] == detail
    assert (await nova.ann("GET", "/v2.1/flavors/2/os-extra_specs", expect=200)).json == {"extra_specs": {}}
    await nova.ann("GET", "/v2.1/flavors/99", expect=404)


NO_IMAGES: list[Any] = ["", [], NONE, PRIVATE, QUEUED, LARGE, "../" * 50]
NO_MAPPINGS: list[Any] = ["x", [1], [{}, {}], [{"source_type": "snapshot"}]]


def server(**given: Any) -> dict[str, Any]:
    return {"server": {"name": "x", "flavorRef": "1", "imageRef": IMAGE, **given}}


def mapped(**given: Any) -> dict[str, Any]:
    return server(imageRef="", block_device_mapping_v2=[{"source_type": "image", "uuid": IMAGE, **given}])


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[" * 100_000,
        [],
        {},
        {"server": []},
        *(server(name=name) for name in (None, "", "  ", 1, "x" * 256, "a\nb", "\x00")),
        *(server(flavorRef=flavor) for flavor in (None, 1, "99", "m1.huge")),
        *(server(imageRef=image) for image in NO_IMAGES),
        *(server(min_count=count) for count in (2, "2")),
        *(server(metadata=metadata) for metadata in ([1], {"a": 1})),
        *(server(block_device_mapping_v2=mappings) for mappings in NO_MAPPINGS),
        *(mapped(volume_size=size) for size in ("²", "x", -1, 0, True, 1.5, [1], "9" * 5000, 10**30)),
        mapped(uuid=3),
    ],
    ids=lambda body: repr(body)[:50],
)
async def test_hostile_creates_are_400_and_make_nothing(nova: Nova, body: object, autojump_clock: trio.testing.MockClock) -> None:
    await nova.ann("POST", "/v2.1/servers", body, expect=400)
    assert nova.volumes.volumes == {} and await nova.ground.kv.range(SERVERS) == []


@pytest.mark.parametrize(
    "body, status",
    [
        ({}, 400),
        ({"os-start": None, "os-stop": None}, 400),
        ({"rebuild": {}}, 400),
        ({"os-getConsoleOutput": None}, 400),
        ({"os-getConsoleOutput": {"length": "--5"}}, 400),
        ({"os-getConsoleOutput": {"length": "9" * 5000}}, 400),
        ({"os-getConsoleOutput": {"length": [1]}}, 400),
        ({"os-start": None}, 409),
    ],
    ids=lambda value: repr(value)[:40],
)
async def test_hostile_actions(nova: Nova, body: object, status: int, autojump_clock: trio.testing.MockClock) -> None:
    server_id = await nova.active()
    await nova.act(server_id, body, expect=status)
    assert (await nova.show(server_id))["status"] == "ACTIVE"


async def test_nothing_is_wanted_of_a_server_that_is_being_deleted(nova: Nova, autojump_clock: trio.testing.MockClock) -> None:
    server_id = await nova.active()
    nova.hypervisor.fail_next = [Unavailable("libvirt")] * 100
    await nova.ann("DELETE", f"/v2.1/servers/{server_id}", expect=204)
    await nova.act(server_id, {"reboot": {"type": "HARD"}}, expect=409)
    nova.hypervisor.fail_next.clear()
    await trio.sleep(5)
    assert nova.hypervisor.states == {}


async def test_one_agent_at_a_time(nova: Nova, autojump_clock: trio.testing.MockClock) -> None:
    await trio.sleep(1)
    assert await nova.holder() == "cloud/0/1"
    async with trio.open_nursery() as nursery:
        nursery.start_soon(nova.agent(Owner("cloud", 1, 1)).run)
        await trio.sleep(5 * LEASE_S)
        assert await nova.holder() == "cloud/0/1"
        nursery.cancel_scope.cancel()
    assert await nova.holder() == "cloud/0/1"


@pytest.mark.parametrize("held", [Owner("cloud before", 1, 7), Owner("cloud", 1, 1)], ids=str)
async def test_a_dead_agent_is_succeeded_at_once(nova: Nova, held: Owner, autojump_clock: trio.testing.MockClock) -> None:
    """It was killed with its lease; the one after it does not wait until that runs out."""
    await trio.sleep(1)
    kv = nova.ground.kv
    await kv.transact([], [Put(AGENT_KEY, str(held).encode(), await kv.grant(1000))])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(nova.agent(Owner("cloud", 1, 2)).run)
        await trio.sleep(0.1)
        assert await nova.holder() == "cloud/1/2"
        nursery.cancel_scope.cancel()


async def test_a_slow_start_holds_up_neither_the_lease_nor_others(nova: Nova, autojump_clock: trio.testing.MockClock) -> None:
    running = await nova.active(name="running")
    nova.hypervisor.starting_s = 5 * LEASE_S
    slow = [await nova.boot(name=f"slow-{number}") for number in range(3)]
    await trio.sleep(2 * LEASE_S)
    assert await nova.holder() == "cloud/0/1"
    assert nova.hypervisor.starts_under_way == GUESTS_STARTING_MAX
    await nova.act(running, {"os-stop": None})
    await nova.until(running, "SHUTOFF", timeout_s=10)
    await nova.ann("DELETE", f"/v2.1/servers/{running}", expect=204)
    await trio.sleep(3)
    await nova.ann("GET", f"/v2.1/servers/{running}", expect=404)
    for server_id in slow:
        await nova.until(server_id, "ACTIVE", timeout_s=20 * LEASE_S)


async def test_an_agent_that_lost_its_lease_begins_nothing(nova: Nova, autojump_clock: trio.testing.MockClock) -> None:
    await trio.sleep(1)
    kv = nova.ground.kv
    entry = await kv.get(AGENT_KEY)
    assert entry is not None and entry.lease is not None
    await kv.revoke(entry.lease)
    await kv.transact([], [Put(AGENT_KEY, str(Owner("cloud", 1, 1)).encode(), await kv.grant(10 * LEASE_S))])
    await trio.sleep(LEASE_S)
    server_id = await nova.boot()
    await trio.sleep(LEASE_S)
    assert (await nova.show(server_id))["status"] == "BUILD" and nova.hypervisor.specs == {}
    await nova.until(server_id, "ACTIVE", timeout_s=20 * LEASE_S)

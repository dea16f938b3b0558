"""Storage policies of a cloud: what the option says, what a cloud has, what can be added."""

from __future__ import annotations

from pathlib import Path

import pytest

from ring.errors import BadInput, Conflict
from ring.policy import Policy
from ring.ringfile import decode
from ring.world.real import make_world
from storage.erasure.errors import BadCoding
from tools.deploy.create import add_policies, create
from tools.deploy.layout import CloudRecord, Layout, PolicyRecord
from tools.deploy.policies import added, parse, policies_of
from tools.deploy.publish import NO_SECRETS

COLD = PolicyRecord(name="cold", replicas=6, k=4, m=2)
TWO = PolicyRecord(name="two", replicas=2)


def record(*policies: PolicyRecord, devices: int = 6) -> CloudRecord:
    return CloudRecord(cluster_id="c", devices=devices, replicas=3, part_power=4, policies=policies)


def test_the_option() -> None:
    assert parse("name=cold,type=ec,k=4,m=2") == COLD
    assert parse("type=replication, replicas=2, name=two") == TWO
    assert parse("name=two,type=replication,replicas=2,default").default
    with pytest.raises(BadCoding):
        parse("name=x,type=ec,k=40,m=2")


@pytest.mark.parametrize(
    "text",
    ["", "name=x", "name=x,type=ec", "name=x,type=ec,k=2,m=1,replicas=3", "name=x,type=replication,replicas=0",
     "name=x,type=ec,k=2,m=-1",
     "name=x,type=ec,k=2,m=1,default=yes", "name=,type=ec,k=2,m=1", "name=x y,type=ec,k=2,m=1", "name=x,name=x,type=ec,k=2,m=1"],
)  # fmt: skip
def test_options_that_are_refused(text: str) -> None:
    with pytest.raises(BadInput) as raised:
        parse(text)
    assert raised.value.hint


def test_the_policies_of_a_cloud() -> None:
    assert list(policies_of(record())) == [Policy(0, "Policy-0", 3, default=True)]
    hot = PolicyRecord(name="hot", replicas=2, default=True)
    policies = policies_of(record(COLD, hot))
    assert [(p.index, p.name, p.ring_name, p.coded) for p in policies] == [
        (0, "Policy-0", "object", False),
        (1, "cold", "object-1", True),
        (2, "hot", "object-2", False),
    ]
    assert policies.default.name == "hot"
    assert record(COLD, hot).rings == ("account", "container", "object", "object-1", "object-2")


def test_what_can_be_added() -> None:
    assert added(record(COLD), [COLD, TWO]) == [TWO]
    with pytest.raises(Conflict, match="another policy cold"):
        added(record(COLD), [PolicyRecord(name="cold", replicas=3, k=2, m=1)])
    with pytest.raises(BadInput, match="needs 6 devices, the cloud has 5"):
        added(record(devices=5), [COLD])
    assert added(record(COLD), [PolicyRecord(name="COLD", replicas=COLD.replicas, k=COLD.k, m=COLD.m)]) == []
    default = PolicyRecord(name="a", replicas=1, default=True)
    assert added(record(default), [PolicyRecord(name="A", replicas=1)]) == [], "that it is the default need not be said again"
    with pytest.raises(Conflict, match="another policy"):
        added(record(TWO), [PolicyRecord(name="two", replicas=TWO.replicas, default=True)])
    with pytest.raises(Conflict, match="one policy is the default"):
        added(record(default), [PolicyRecord(name="b", replicas=1, default=True)])


async def test_a_ring_for_each(tmp_path: Path) -> None:
    world = make_world()
    layout = Layout(tmp_path / "cloud")
    made = await create(world, layout, devices=3, replicas=2, policies=[TWO])
    assert made == layout.read_record()
    rings = layout.rings
    assert decode((rings / "object-1.ring").read_bytes(), NO_SECRETS).replica_count == 2
    wide = PolicyRecord(name="wide", replicas=3, k=2, m=1)
    after = await add_policies(world, layout, made, [wide])
    assert after == layout.read_record() and after.policies == (TWO, wide)
    ring = decode((rings / "object-2.ring").read_bytes(), NO_SECRETS)
    assert ring.replica_count == 3
    assert [device.id for device in ring.devices if device is not None] == [0, 1, 2]
    assert (layout.published / "object-2.ring").read_bytes() == (rings / "object-2.ring").read_bytes()

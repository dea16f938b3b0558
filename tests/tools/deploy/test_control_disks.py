"""Control state never begins anew because its disks are not there."""

from __future__ import annotations

from pathlib import Path

import pytest

from ring.errors import Unavailable
from ring.world.real import make_world
from tools.deploy.layout import CloudRecord, Layout
from tools.deploy.storage import control_disks


@pytest.mark.parametrize(
    ("files", "missing"),
    [
        (["d0/device.json", "d1/device.json", "d2/device.json"], None),  # a new cloud
        (["d0/device.json", "d1/device.json"], "d2"),
        ([], "d0"),
        (["d1/kv/control.log"], None),  # the store itself decides
        (["d0/device.json", "d2/kv/control.log"], None),
        (["d3/kv/control.log", "d0/device.json", "d2/device.json"], "d1"),  # d3 never holds one
    ],
)
async def test_disks(tmp_path: Path, files: list[str], missing: str | None) -> None:
    layout = Layout(tmp_path)
    for number in range(4):
        layout.device(number).mkdir(parents=True)
    for name in files:
        (tmp_path / "devices" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "devices" / name).write_bytes(b"x")
    record = CloudRecord(cluster_id="c", devices=4, replicas=3, part_power=10)
    if missing is None:
        assert len(await control_disks(make_world(), layout, record)) == 3
    else:
        with pytest.raises(Unavailable, match=f"{missing} is not a device"):
            await control_disks(make_world(), layout, record)

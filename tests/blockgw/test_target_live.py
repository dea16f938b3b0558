"""Released initiators against the target on loopback: libiscsi's tools and QEMU's block driver."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

from blockgw.iscsi.chap import Secret
from blockgw.iscsi.login import Access
from blockgw.scsi.block import MemoryBlockDevice
from blockgw.target.server import TargetServer
from blockgw.target.target import Target
from ring.world.interface import TcpAddress
from ring.world.real import make_world
from tests.blockgw.initiator import IQN, VOLUME_ID

pytestmark = pytest.mark.live

SIZE = 100 << 20

# family: passed, failed, skipped; of libiscsi 1.19.  One at a time: a skipped CompareAndWrite leaves a hook behind that corrupts
# the CDBs of all families after it.
CONFORMANCE = {
    "GetLBAStatus": (2, 1, 0),  # UnmapSingle asks for LBA 9 and wants an answer that begins at 8; QEMU wants 9, and so do we
    "Inquiry": (7, 0, 0),
    "Mandatory": (1, 0, 0),
    "ModeSense6": (5, 0, 0),
    "NoMedia": (1, 0, 0),
    "Read6": (2, 0, 0),
    "Read10": (6, 0, 0),
    "Read12": (5, 0, 0),
    "Read16": (5, 0, 0),
    "ReadCapacity10": (1, 0, 0),
    "ReadCapacity16": (4, 0, 0),
    "ReportSupportedOpcodes": (3, 0, 1),  # OneCommand takes our 24/00 for "not implemented"
    "StartStopUnit": (2, 0, 1),  # Simple is for removable media
    "TestUnitReady": (1, 0, 0),
    "Unmap": (3, 0, 0),
    "Verify10": (8, 0, 0),
    "Verify12": (8, 0, 0),
    "Verify16": (8, 0, 0),
    "Write10": (6, 0, 0),
    "Write12": (5, 0, 0),
    "Write16": (5, 0, 0),
    "WriteSame10": (9, 0, 1),  # no length 0
    "WriteSame16": (9, 0, 1),
    "iSCSIcmdsn": (2, 0, 0),
    "iSCSIdatasn": (0, 1, 0),  # its second case logs in again with immediate data after we dropped the first, and sends no Data-Out
    "iSCSIResiduals": (7, 0, 3),  # WRITE AND VERIFY
    "iSCSITMF": (2, 0, 0),
}


@asynccontextmanager
async def portal(access: Access | None = None) -> AsyncIterator[tuple[str, MemoryBlockDevice]]:
    """ "host:port" of a target that serves a disk in RAM."""
    world, device = make_world(), MemoryBlockDevice(SIZE)
    listener = await world.net.listen(TcpAddress("127.0.0.1", 0))
    address = str(listener.address)
    target = Target(IQN, address, VOLUME_ID, device, access or Access())

    async def lookup(iqn: str) -> Target | None:
        return target if iqn == IQN else None

    async def discover() -> list[tuple[str, str]]:
        return [(IQN, address)]

    server = TargetServer(world, lookup, discover=discover)
    async with trio.open_nursery() as nursery:

        async def accept() -> None:
            while True:
                nursery.start_soon(server.serve_connection, await listener.accept())

        nursery.start_soon(accept)
        try:
            yield address, device
        finally:
            nursery.cancel_scope.cancel()
            with trio.CancelScope(shield=True):
                await listener.aclose()


async def run(*argv: str, timeout_s: float = 60) -> tuple[int, str]:
    status, out, err = await make_world().process.run(argv, timeout_s=timeout_s)
    return status, (out + err).decode(errors="replace")


async def test_libiscsi_lists_the_target() -> None:
    async with portal() as (address, _):
        status, text = await run("iscsi-ls", "-s", f"iscsi://{address}")
        assert status == 0 and f"Target:{IQN} Portal:{address},1" in text
        assert "Lun:1    Type:DIRECT_ACCESS (Size:99M)" in text
        status, text = await run("iscsi-inq", f"iscsi://{address}/{IQN}/1")
        assert status == 0 and "Vendor:RINGFORT" in text
        status, text = await run("iscsi-inq", "-e", "1", "-c", "131", f"iscsi://{address}/{IQN}/1")
        assert status == 0 and "NAA" in text


async def test_qemu_reads_back_what_it_wrote() -> None:
    async with portal(Access(Secret("user", "secret-of-user"))) as (address, device):
        url = f"iscsi://user%secret-of-user@{address}/{IQN}/1"
        steps = [
            "write -P 7 1M 3M",
            "read -P 7 1M 3M",
            "write -f -P 9 512 4k",
            "write -z -u 2M 64k",
            "read -P 0 2M 64k",
            "discard 3M 1M",
            "read -P 0 3M 1M",
            "aio_write -P 3 10M 2M",
            "aio_write -P 4 12M 64k",
            "aio_flush",
            "flush",
        ]
        status, text = await run("qemu-io", "-f", "raw", *(part for step in steps for part in ("-c", step)), url)
        assert status == 0 and "failed" not in text, text
        assert device.data[512 : 512 + 4096] == b"\x09" * 4096
        assert device.data[10 << 20 : 12 << 20] == b"\x03" * (2 << 20)
        assert device.flushes
        status, text = await run("qemu-img", "info", url)
        assert status == 0 and "100 MiB" in text


async def test_qemu_with_a_wrong_secret() -> None:
    async with portal(Access(Secret("user", "secret-of-user"))) as (address, _):
        status, text = await run("qemu-img", "info", f"iscsi://user%wrong-secret-12@{address}/{IQN}/1")
        assert status != 0 and "513" in text


@pytest.mark.parametrize("family", sorted(CONFORMANCE))
async def test_conformance(family: str) -> None:
    async with portal() as (address, _):
        _, text = await run("iscsi-test-cu", "--dataloss", "-t", f"ALL.{family}", f"iscsi://{address}/{IQN}/1")
    assert tally(text) == CONFORMANCE[family], text[-3000:]


def tally(text: str) -> tuple[int, int, int]:
    """Passed, failed, skipped, of the tool's report: a test's remarks, if any, come before its outcome."""
    passed = failed = skipped = 0
    for part in re.split(r"^  Test: \S+ \.\.\.", text, flags=re.MULTILINE)[1:]:
        outcome = re.search(r"^(.*?)^(passed|FAILED)", "\n" + part, flags=re.MULTILINE | re.DOTALL)
        assert outcome is not None, part
        if outcome[2] == "FAILED":
            failed += 1
        elif "SKIPPED" in outcome[1]:
            skipped += 1
        else:
            passed += 1
    return passed, failed, skipped

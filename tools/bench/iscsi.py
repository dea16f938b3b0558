"""4 KiB random reads and writes over iSCSI against a volume in RAM: what the target itself costs.

    python -m tools.bench.iscsi [--seconds 3]

The target runs in a process of its own; this one is a bare initiator that logs in, keeps QUEUE commands in flight by raw PDUs, and
reads the target's cpu time from /proc.  It prints requests per second and cpu per request; both share the machine's cores, so the
second figure is the one to compare.
"""

from __future__ import annotations

import argparse
import os
import random
import socket
import struct
import subprocess
import sys
import time
from uuid import UUID

import trio

from blockgw.iscsi import pdu, text
from blockgw.scsi import cdb
from blockgw.scsi.block import MemoryBlockDevice
from blockgw.target.server import TargetServer
from blockgw.target.target import Target
from ring.world.interface import TcpAddress
from ring.world.real import make_world

VOLUME = UUID("00000000-0000-4000-8000-000000000001")
IQN = f"iqn.2026-01.org.ringfort:volume-{VOLUME}"
SIZE = 256 << 20
REQUEST_BYTES = 4096
DEPTHS = (1, 16, 64)


async def serve() -> None:
    """The target's process: prints its port, then serves until killed."""
    world = make_world()
    listener = await world.net.listen(TcpAddress("127.0.0.1", 0))
    device = MemoryBlockDevice(SIZE)
    device.data = bytearray(b"\x5a" * SIZE)  # so that no page is touched for the first time while it is measured
    target = Target(IQN, str(listener.address), VOLUME, device)

    async def lookup(iqn: str) -> Target | None:
        return target if iqn == IQN else None

    server = TargetServer(world, lookup)
    assert isinstance(listener.address, TcpAddress)
    print(listener.address.port, flush=True)
    async with trio.open_nursery() as nursery:
        while True:
            nursery.start_soon(server.serve_connection, await listener.accept())


class Initiator:
    """One session.  Every request moves REQUEST_BYTES and is answered by one PDU, so answers are counted by their bytes."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._command_sn = 1
        self._data = os.urandom(REQUEST_BYTES)
        keys = [("InitiatorName", "iqn.2026-01.org.ringfort:bench"), ("TargetName", IQN), ("MaxRecvDataSegmentLength", "262144")]
        body = text.encode(keys)
        flags = pdu.TRANSIT | 1 << 2 | 3
        fields = (pdu.LOGIN | pdu.IMMEDIATE, flags, 0, 0, len(body), b"\x80bench", 0, 0, 0, 1, 0)
        self._socket.sendall(pdu.LOGIN_REQUEST.pack(*fields) + body + pdu.pad(body))
        answer = self._exactly(pdu.HEADER_BYTES)
        length = int.from_bytes(answer[5:8], "big")
        self._exactly(length + -length % 4)
        if answer[36:38] != b"\0\0":
            raise SystemExit(f"the login was refused: {answer[36:38].hex()}")
        self.run(1, 1, writes=False, answer_bytes=pdu.HEADER_BYTES + 20)  # takes the unit attention away

    def run(self, depth: int, count: int, *, writes: bool, answer_bytes: int = 0) -> None:
        answer_bytes = answer_bytes or (pdu.HEADER_BYTES if writes else pdu.HEADER_BYTES + REQUEST_BYTES)
        sent, done, held = 0, 0, 0
        buffer = bytearray(1 << 20)
        while done < count:
            more = min(depth - (sent - done), count - sent)
            if more:
                self._socket.sendall(b"".join(self._request(writes) for _ in range(more)))
                sent += more
            held += self._socket.recv_into(buffer)
            done, held = done + held // answer_bytes, held % answer_bytes

    def _request(self, writes: bool) -> bytes:
        blocks = REQUEST_BYTES // 512
        lba = random.randrange(SIZE // REQUEST_BYTES) * blocks
        command = cdb.encode_extent(cdb.WRITE_16 if writes else cdb.READ_16, lba, blocks)
        flags = pdu.FINAL | (pdu.WRITES if writes else pdu.READS) | 1
        self._command_sn += 1
        header = pdu.COMMAND.pack(
            pdu.SCSI_COMMAND, flags, b"\0\x01" + bytes(6), self._command_sn, REQUEST_BYTES, self._command_sn - 1, 0, command
        )
        if not writes:
            return header
        return header[:4] + struct.pack(">I", REQUEST_BYTES) + header[8:] + self._data

    def _exactly(self, length: int) -> bytes:
        data = b""
        while len(data) < length:
            data += self._socket.recv(length - len(data))
        return data


def cpu_s(pid: int) -> float:
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    parser = argparse.ArgumentParser(description="cost of 4 KiB requests over iSCSI, against a volume in RAM")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each of the six runs")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        trio.run(serve)
    with subprocess.Popen([sys.executable, "-m", "tools.bench.iscsi", "--serve"], stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        try:
            initiator = Initiator(int(server.stdout.readline()))
            print(f"{'':12}{'depth':>6}{'requests/s':>12}{'cpu ms/request':>16}")
            for writes in (False, True):
                for depth in DEPTHS:
                    started, cpu, count = time.monotonic(), cpu_s(server.pid), 0
                    while (elapsed := time.monotonic() - started) < arguments.seconds:
                        initiator.run(depth, 64 * depth, writes=writes)
                        count += 64 * depth
                    each_ms = (cpu_s(server.pid) - cpu) / count * 1e3
                    print(f"{'4 KiB write' if writes else '4 KiB read':12}{depth:6}{count / elapsed:12.0f}{each_ms:16.4f}")
        finally:
            server.kill()


if __name__ == "__main__":
    main()

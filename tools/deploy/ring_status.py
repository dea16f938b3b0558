"""What a worker says of its rings, on its own socket: which version is in force, and how far its devices are with it.

Neighbours: worker (serves it), publish (asks).
"""

from __future__ import annotations

import msgspec

from ring.wire.message import Handler, Headers, Request, Response
from tools.deploy.storage import StorageRoom

RINGS_PATH = "/rings"


class RingState(msgspec.Struct, frozen=True):
    version: int
    settled: int
    devices: dict[int, float]  # of this worker: 1 when the device has confirmed the version, less while its pass goes on


class WorkerRings(msgspec.Struct, frozen=True):
    worker: int
    edition: int
    rings: dict[str, RingState]


def state_of(worker: int, storage: StorageRoom) -> WorkerRings:
    edition = storage.keeper.edition
    own = sorted(storage.devices.own.items())
    rings = {
        name: RingState(
            ring.newest.version,
            ring.settled.version,
            {number: round(device.progress(name), 4) if ring.newest != ring.settled else 1.0 for number, device in own},
        )
        for name, ring in edition.rings.items()
    }
    return WorkerRings(worker, edition.number, rings)


def rings_handler(worker: int, storage: StorageRoom) -> Handler:
    async def handle(request: Request) -> Response:
        body = msgspec.json.encode(state_of(worker, storage))
        return Response(200, Headers([("Content-Type", "application/json")]), body)

    return handle

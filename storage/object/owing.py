"""Owing anew: the row of a version that is about to be brought from a few devices to the others.

A write that nobody was told of may have reached one device, which paid its row to one disk; when that disk is replaced, the version
is still found and spread, and nobody would list it.  So a primary that brings what fewer than a majority hold owes the row again
first, to all of the container's devices.  A device that is being refilled does not count as one that lacks something, or a refill
would owe the row of everything; nor does what may have been deleted and forgotten.

Neighbours: storage.object.replicator (brings it), storage.object.updater (pays), storage.client.debts (who owes at first).
"""

from __future__ import annotations

from collections.abc import Collection

from storage.client.node import Debt, Kind
from storage.client.shapes import row_of
from storage.object.layer import OwedInfo
from storage.object.record import RecordKind, info_of
from storage.object.store import ObjectStore


def at_minority(voters: Collection[int], lacking: Collection[int]) -> bool:
    """Whether what these lack is surely at no majority of the voters (device ids)."""
    lack = len(set(voters) & set(lacking))
    return bool(voters) and len(voters) - lack <= len(voters) // 2


async def owe_anew(store: ObjectStore, key: bytes) -> None:
    """Durable when it returns, if the disk takes anything.  DiskFault, DeviceOutOfService."""
    held = store.index.get(key)
    if held is None:
        return
    version = await store.reader.describe(held, await store.reader.path(held))
    kind = RecordKind.TOMBSTONE if version.kind is Kind.TOMBSTONE else RecordKind.OBJECT_INLINE
    if store.index.get(key) is None:
        return  # replaced meanwhile
    store.index.owe(key, OwedInfo(kind, info_of(version, Debt(row_of(version), version.path.parent, ()))))
    await store.index.try_commit(store.device.health.takes_writes)

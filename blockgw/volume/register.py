"""The one mutable thing of a volume: its register in kv, and the claim that says which worker may open it.

    blockgw/registers/<volume>   Register: epoch, where its checkpoint is
    blockgw/owners/<volume>      Owner, under a lease of its worker

A worker opens a volume by writing the next epoch with compare; a writer of an older epoch then fails at its next checkpoint.
Between workers the claim decides: it is free when its key is gone (the lease ran out), or held by a worker that is known to be
dead (blockgw.client.owner).
"""

from __future__ import annotations

import msgspec

from blockgw.client.owner import Owner, dead
from ring.errors import Conflict, NotFound
from ring.kv.interface import KV, LeaseId, Operation, Put, Unchanged

REGISTERS = "blockgw/registers/"
OWNERS = "blockgw/owners/"


class Register(msgspec.Struct, frozen=True):
    epoch: int = 0
    checkpoint: str = ""  # object name; "" before the first
    checkpoint_epoch: int = 0  # whose segments and log follow the checkpoint
    closed: bool = False  # nothing follows it


async def claim(kv: KV, volume_id: str, me: Owner, lease: LeaseId) -> None:
    """Conflict while a living worker holds it."""
    key = OWNERS + volume_id
    entry = await kv.get(key)
    if entry is not None and not dead(msgspec.json.decode(entry.value, type=Owner), me):
        raise Conflict(f"volume {volume_id} is open in another worker", hint="it is free when that worker's lease runs out")
    compare = Unchanged(key, entry.modified if entry is not None else 0)
    if not (await kv.transact([compare], [Put(key, msgspec.json.encode(me), lease)])).succeeded:
        raise Conflict(f"volume {volume_id} was opened by another worker just now")


class RegisterKeeper:
    """Reads and moves one register.  After a Conflict this worker must not write the volume any more."""

    def __init__(self, kv: KV, volume_id: str) -> None:
        self._kv = kv
        self._key = REGISTERS + volume_id
        self._modified = 0
        self.value = Register()

    @staticmethod
    def create(volume_id: str) -> Operation:
        """The operation that makes a new volume's register."""
        return Put(REGISTERS + volume_id, msgspec.json.encode(Register()))

    async def load(self) -> Register:
        entry = await self._kv.get(self._key)
        if entry is None:
            raise NotFound(f"{self._key} does not exist")
        self._modified = entry.modified
        self.value = msgspec.json.decode(entry.value, type=Register)
        return self.value

    async def move(self, value: Register) -> None:
        """Compare and set.  Conflict when someone else moved it: the volume was taken over."""
        while True:
            outcome = await self._kv.transact([Unchanged(self._key, self._modified)], [Put(self._key, msgspec.json.encode(value))])
            if outcome.succeeded:
                self._modified = outcome.revision
                self.value = value
                return
            entry = await self._kv.get(self._key)
            # An epoch has one holder.  So what was written with ours was our own move, whose answer did not come.
            ours = self.value.epoch == value.epoch
            if entry is None or not ours or msgspec.json.decode(entry.value, type=Register).epoch != value.epoch:
                raise Conflict(f"{self._key} was moved by another writer")
            self._modified = entry.modified

"""Composition of identity in one process: the view of kv, the store, login, the API's handler.  Used by the deployment only."""

from __future__ import annotations

from dataclasses import dataclass

import trio

from identity.api.app import make_api
from identity.client.local import LocalIdentity
from identity.client.sealing import Sealer
from identity.login import Login
from identity.records import PREFIX
from identity.store import IdentityStore
from ring.kv.interface import KV
from ring.kv.view import View
from ring.wire.message import Handler
from ring.world.interface import World


@dataclass(frozen=True, slots=True)
class IdentityRoom:
    store: IdentityStore
    login: Login
    sealer: Sealer
    client: LocalIdentity
    api: Handler  # paths begin at "/", without the mount point


async def start_identity(
    nursery: trio.Nursery, world: World, kv: KV, *, root_key: bytes, public_url: str, token_ttl_s: float = 3600.0
) -> IdentityRoom:
    """``public_url``: where clients reach the API, up to and without "/v3"."""
    view = View(kv, PREFIX)
    await nursery.start(view.run)
    sealer = Sealer(root_key, world.entropy)
    store = IdentityStore(kv, view)
    login = Login(world, store, sealer, token_ttl_s=token_ttl_s)
    client = LocalIdentity(store, login, sealer)
    return IdentityRoom(store, login, sealer, client, make_api(world, store, login, sealer, public_url=public_url))

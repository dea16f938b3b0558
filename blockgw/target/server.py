"""TargetServer: logs initiators in and keeps one session for each initiator port and target.

A login with the names and ISID of a session that is there replaces it (RFC 7143 6.3.5): the old one is stopped, and only when
nothing of it touches the device any more is the new one answered.  Resets reach all sessions of a target.

Neighbours: iscsi.login (decides), connection.py (the full feature phase), target.py (what ``lookup`` gives).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import trio

from ring.errors import RingfortError, Unavailable
from ring.world.interface import Stream, World

from ..iscsi.login import PORTAL_GROUP, SEGMENT_BYTES_LOGIN, Login, NeedTarget, Refusal
from ..iscsi.pdu import Framer, ProtocolError
from ..iscsi.session import LUN_RESET, TARGET_WARM_RESET, Management, Session
from ..scsi.block import MappedDevice
from ..scsi.nexus import Nexus
from ..scsi.pages import Identity
from ..scsi.sense import DEVICE_RESET
from ..scsi.unit import LogicalUnit
from .connection import Connection
from .target import Discover, Lookup, Target


@dataclass(frozen=True, slots=True)
class Limits:
    login_s: float = 15.0  # from the connection to the full feature phase
    connections_max: int = 1024
    logins_max: int = 128  # connections that are not logged in yet


@dataclass(frozen=True, slots=True)
class SessionKey:
    initiator: str
    isid: bytes
    iqn: str


async def _nothing() -> Sequence[tuple[str, str]]:
    return ()


class TargetServer:
    """``discover`` answers SendTargets in discovery sessions, which are open to everybody; without it they see nothing."""

    def __init__(self, world: World, lookup: Lookup, *, discover: Discover = _nothing, limits: Limits | None = None) -> None:
        self._world = world
        self._lookup = lookup
        self._discover = discover
        self._limits = limits or Limits()
        self._sessions: dict[SessionKey, Connection] = {}
        self._connections = 0
        self._logins = 0
        self._handle = 0

    async def serve_connection(self, stream: Stream, initial: bytes = b"") -> None:
        """Serve one initiator until it goes; ``initial`` is what was already received of it.  Closes the stream."""
        self._connections += 1
        self._logins += 1
        logging_in = True
        try:
            if self._connections > self._limits.connections_max or self._logins > self._limits.logins_max:
                return
            with trio.move_on_after(self._limits.login_s):
                start = await self._log_in(stream, initial)
                self._logins -= 1
                logging_in = False
            if logging_in or start is None:
                return
            key, connection, rest = start
            try:
                await connection.run(rest)
            finally:
                if self._sessions.get(key) is connection:
                    del self._sessions[key]
        except (trio.BrokenResourceError, trio.ClosedResourceError, ProtocolError):
            return
        finally:
            self._logins -= logging_in
            self._connections -= 1
            with trio.CancelScope(shield=True, deadline=trio.current_time() + 1):
                await stream.aclose()

    def session_count(self, iqn: str) -> int:
        return sum(key.iqn == iqn for key in self._sessions)

    async def drop(self, iqn: str) -> None:
        """End all sessions of a target; when it returns nothing of them touches its device any more."""
        for connection in [connection for key, connection in self._sessions.items() if key.iqn == iqn]:
            connection.close()
            await connection.finished.wait()

    async def _log_in(self, stream: Stream, initial: bytes) -> tuple[SessionKey, Connection, bytes] | None:
        self._handle = self._handle % 0xFFFF + 1
        login = Login(self._world.entropy.token, tsih=self._handle)
        framer = Framer(SEGMENT_BYTES_LOGIN)
        target: Target | None = None
        data = initial
        while True:
            for header, segment in framer.feed(data):
                step = login.receive(header, segment)
                if isinstance(step, NeedTarget):
                    found = await self._find(step.iqn)
                    if isinstance(found, Target):
                        target = found
                    step = login.found(found.access if isinstance(found, Target) else found)
                if step.logged_in:
                    connection = self._connection(stream, login, target)
                    key = SessionKey(login.initiator_name.lower(), login.isid, login.target_name)
                    if not login.discovery:
                        await self._replace(key, connection)
                    try:
                        await stream.send_all(step.pdu)
                    except BaseException:
                        self._forget(key, connection)
                        connection.finished.set()
                        raise
                    return key, connection, framer.rest()
                await stream.send_all(step.pdu)
                if step.refusal is not None:
                    return None
            data = bytes(await stream.receive_some(max(4096, framer.wanted)))
            if not data:
                return None

    async def _find(self, iqn: str) -> Target | Refusal:
        try:
            return await self._lookup(iqn) or Refusal.NOT_FOUND
        except Unavailable:
            return Refusal.UNAVAILABLE
        except RingfortError:
            return Refusal.OUT_OF_RESOURCES

    def _connection(self, stream: Stream, login: Login, target: Target | None) -> Connection:
        command_sn, status_sn = login.command_sn, login.status_sn
        if target is None:
            session = Session(login.parameters, None, command_sn=command_sn, status_sn=status_sn)
            return Connection(stream, session, None, discover=self._discover_all)
        identity = Identity(target.volume_id, f"{target.iqn},t,0x{PORTAL_GROUP:04x}")
        run_at = target.device.run_at if isinstance(target.device, MappedDevice) else None
        nexus = Nexus(LogicalUnit(target.device.size, identity, run_at), target.lun)
        session = Session(login.parameters, nexus, command_sn=command_sn, status_sn=status_sn, target_name=target.iqn)
        own = [(target.iqn, target.portal)]

        async def discover_own() -> Sequence[tuple[str, str]]:
            return [(iqn, f"{portal},{PORTAL_GROUP}") for iqn, portal in own]

        connection = Connection(stream, session, target.device, discover=discover_own)
        connection.reset_others = lambda management: self._reset(target.iqn, connection, management)
        return connection

    async def _discover_all(self) -> Sequence[tuple[str, str]]:
        return [(iqn, f"{portal},{PORTAL_GROUP}") for iqn, portal in await self._discover()]

    async def _replace(self, key: SessionKey, connection: Connection) -> None:
        while (old := self._sessions.get(key)) is not None:
            old.close()
            await old.finished.wait()
            self._forget(key, old)
        self._sessions[key] = connection

    def _forget(self, key: SessionKey, connection: Connection) -> None:
        if self._sessions.get(key) is connection:
            del self._sessions[key]

    def _reset(self, iqn: str, origin: Connection, management: Management) -> list[Connection]:
        """The other sessions whose tasks go too.  A unit attention tells every initiator of a reset."""
        if not management.resets:
            return []
        sessions = [connection for key, connection in self._sessions.items() if key.iqn == iqn]
        if management.function in (LUN_RESET, TARGET_WARM_RESET):
            for connection in sessions:
                if connection.session.nexus is not None:
                    connection.session.nexus.attend(DEVICE_RESET)
        return [connection for connection in sessions if connection is not origin]

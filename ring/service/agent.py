"""RingAgent: makes true what was published, on one machine.  Level-triggered: it looks at what is there and takes one step.

    a ring file was put into the folder ``published``   -> propose it as the next edition
    the register has a newer edition than this machine  -> fetch its rings from any node that has them, and adopt it
    every device confirmed a ring                       -> propose that it is settled
    every device is clean up to where a ring closed     -> propose that its tombstones are forgotten, and where to close next

Any number of agents may run: the register lets one step win.  Without control state nothing changes: operations go on by the
edition that is in force.  ``follow_folder`` is what the machine's other workers run, which read what this one writes.

Neighbours: keeper, register, settling, follow; tools.deploy and the simulator run it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

import trio

from ring.errors import Conflict, FormatError, NotFound, RingfortError, Unavailable
from ring.names import NameHasher
from ring.placement import Ring
from ring.service.edition import POLICY_RING, Edition, RingId
from ring.service.follow import fetch
from ring.service.horizon import Horizon, next_horizons
from ring.service.keeper import Keeper, checked
from ring.service.overlap import Overlap, RingSource
from ring.service.register import Register, Report
from ring.service.settling import may_do_without, waiting
from ring.timestamp import TICKS_PER_SECOND, Timestamp
from ring.world.interface import Disk, World

Horizons = Callable[[Edition, Mapping[str, Overlap], Mapping[str, Mapping[int, Report]], int], Mapping[str, Horizon]]


@dataclass(frozen=True, slots=True)
class AgentSettings:
    look_s: float = 1.0  # between two looks
    patience_s: float = 600.0  # for devices that the new ring does not list any more
    horizon_look_s: float = 60.0  # between two looks at whether tombstones may be forgotten
    horizon_step_s: float = 3600.0  # so much further it goes at least: each step is an edition


class RingAgent:
    """``sources``: the nodes of other machines that may have a newer edition; ``published``: the folder (None: nobody publishes
    here); ``note``: what happened, for the log."""

    def __init__(
        self,
        world: World,
        keeper: Keeper,
        register: Register,
        hasher: NameHasher,
        *,
        sources: Callable[[], Sequence[RingSource]] = lambda: (),
        published: Disk | None = None,
        settings: AgentSettings | None = None,
        note: Callable[[str, str], None] = lambda event, detail: None,
        waits_for: Callable[[str, Overlap, set[int]], bool] | None = None,
        horizons: Horizons = next_horizons,
    ) -> None:
        self._world = world
        self._keeper = keeper
        self._register = register
        self._hasher = hasher
        self._sources = sources
        self._published = published
        self._settings = settings or AgentSettings()
        self._note = note
        self._refused: dict[str, RingId] = {}  # published, and cannot be in force
        self._alone: dict[str, tuple[Ring, float]] = {}  # since when only devices that the ring does not list are waited for
        self._waits_for = waits_for or self._still_waits
        self._horizons = horizons
        self._horizon_at = 0.0  # the next look

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            try:
                await self.step()
            except (RingfortError, OSError) as error:
                self._note("rings cannot be brought up to date now", str(error))
            with trio.move_on_after(self._settings.look_s):
                await self._keeper.changed.wait()

    async def step(self) -> None:
        if not await self._level():
            return
        await self._publish()
        for name in sorted(self._keeper.overlaps):
            await self._settle(name)
        if trio.current_time() >= self._horizon_at:
            self._horizon_at = trio.current_time() + self._settings.horizon_look_s
            await self._advance_horizons()

    async def _level(self) -> bool:
        """Bring keeper and register to the newest of what the two and the nodes know; True when they agree."""
        keeper = self._keeper
        newest = await self._register.newest()
        if newest is None or newest.number < keeper.edition.number:
            await self._register.advance(newest, keeper.edition)
            return False
        if newest.number > keeper.edition.number:
            await self._adopt(newest)
        return keeper.edition == newest

    async def _adopt(self, newest: Edition) -> None:
        keeper = self._keeper
        try:
            if await keeper.adopt(newest, {}):  # its rings are in the folder already
                self._note("rings", f"edition {newest.number} is in force")
            return
        except (NotFound, FormatError):
            if await keeper.adopt_with(newest, await self._published_files()):
                self._note("rings", f"edition {newest.number} is in force")
                return
        for source in self._sources():
            try:
                if await fetch(keeper, source) and keeper.edition.number >= newest.number:
                    self._note("rings", f"edition {keeper.edition.number} was fetched and is in force")
                    return
            except RingfortError:
                continue  # the next one may have it
        if keeper.edition.number < newest.number:
            raise Unavailable(f"nobody who can be reached has edition {newest.number} of the rings")

    # ---- steps

    async def _publish(self) -> None:
        if self._published is None:
            return
        for name in await self._published_names():
            data = await self._published.read_file(f"{name}.ring")
            standing = self._keeper.edition.rings.get(name)
            ring = RingId.of(standing.newest.version if standing is not None else 0, data)
            if (standing is not None and ring.checksum == standing.newest.checksum) or self._refused.get(name) == ring:
                continue
            try:
                await self._propose(name, data)
            except (FormatError, Conflict) as error:
                self._refused[name] = ring  # until another file lies there
                self._note("a published ring was refused", error.message)

    async def _published_names(self) -> list[str]:
        """Of the rings that lie there: those in force, and of new storage policies."""
        if self._published is None:
            return []
        found = [file.removesuffix(".ring") for file in await self._published.list_dir("") if file.endswith(".ring")]
        return sorted(name for name in found if name in self._keeper.overlaps or name.startswith(POLICY_RING))

    async def _published_files(self) -> dict[tuple[str, int], bytes]:
        """What lies in the folder ``published``: an agent that proposed one of them may have ended before it adopted it."""
        found: dict[tuple[str, int], bytes] = {}
        for name in await self._published_names():
            assert self._published is not None
            data = await self._published.read_file(f"{name}.ring")
            with suppress(FormatError):  # refused when it was to be published
                found[name, checked(name, data, self._hasher).version] = data
        return found

    async def _propose(self, name: str, data: bytes) -> None:
        keeper = self._keeper
        before = keeper.edition  # a front door may bring a newer one meanwhile: then this is made again above that
        ring = checked(name, data, self._hasher)
        new = RingId.of(ring.version, data)
        old = keeper.overlaps.get(name)
        moves = old is not None and bool(await self._world.offload.run(Overlap(ring, old.ring).moved))
        edition = before.published(name, new, moves=moves)
        # The file is durable before anybody can come to know the edition: otherwise a crash could leave a ring that nobody has.
        if not await keeper.store(name, ring.version, data, before=before):
            return
        if await self._register.advance(before, edition):
            await keeper.adopt(edition, {(name, ring.version): data})
            self._note("rings", f"version {ring.version} of ring {name} is in force, edition {edition.number}")

    async def _settle(self, name: str) -> None:
        edition, overlap = self._keeper.edition, self._keeper.overlaps[name]
        ring = edition.rings[name].newest
        if not overlap.moving:
            return
        confirmed = await self._register.confirmed(name, ring)
        if self._keeper.edition is not edition or self._waits_for(name, overlap, confirmed):
            return
        after = edition.settle(name)
        if await self._register.advance(edition, after):
            await self._keeper.adopt(after, {})
            self._note("rings", f"version {ring.version} of ring {name} is settled, edition {after.number}")

    async def _advance_horizons(self) -> None:
        edition, overlaps = self._keeper.edition, self._keeper.overlaps
        reports = {name: await self._register.reports(name) for name in sorted(overlaps)}
        step = int(self._settings.horizon_step_s * TICKS_PER_SECOND)
        horizons = self._horizons(edition, overlaps, reports, step)
        if self._keeper.edition is not edition or horizons == edition.horizons:
            return
        after = edition.at_horizons(horizons)
        if await self._register.advance(edition, after):
            await self._keeper.adopt(after, {})
            moved = [
                f"{name} closed at {Timestamp(one.closed)}, reclaimed to {Timestamp(one.reclaimed)}"
                for name, one in sorted(horizons.items())
                if one != edition.horizons.get(name)
            ]
            self._note("rings", f"horizons: {'; '.join(moved)}; edition {after.number}")

    def _still_waits(self, name: str, overlap: Overlap, confirmed: set[int]) -> bool:
        left = waiting(overlap, confirmed)
        if left.expected or not left.gone:
            return bool(left.expected)
        since = self._alone.get(name)
        if since is None or since[0] is not overlap.ring:
            since = self._alone[name] = (overlap.ring, trio.current_time())
        patient = trio.current_time() - since[1] < self._settings.patience_s
        return patient or not may_do_without(overlap, set(left.gone))


async def follow_folder(keeper: Keeper, note: Callable[[str, str], None], *, look_s: float = 0.5) -> None:
    """Until cancelled: take what the machine's agent writes.  For the workers that do not write."""
    while True:
        with trio.move_on_after(look_s):
            await keeper.changed.wait()
        before = keeper.edition.number
        try:
            await keeper.reload()
        except (RingfortError, OSError) as error:
            note("rings cannot be read now", str(error))
            await trio.sleep(look_s)
        if keeper.edition.number > before:
            note("rings", f"edition {keeper.edition.number} is in force")


class Confirmations:
    """What the devices of this process say of the rings, on its way to the register."""

    def __init__(self, keeper: Keeper, register: Register, *, again_s: float = 1.0) -> None:
        self._keeper = keeper
        self._register = register
        self._again_s = again_s
        self._send, self._receive = trio.open_memory_channel[Callable[[], Awaitable[None]]](1 << 16)

    def confirm(self, name: str, device_id: int, overlap: Overlap) -> None:
        """The device's pass by this overlap is complete."""
        now = self._keeper.overlaps.get(name)
        if now is None or now.ring is not overlap.ring or now.settled is not overlap.settled:
            return  # a newer ring came meanwhile: another pass follows
        ring = self._keeper.edition.rings[name].newest
        self._say(partial(self._register.confirm, name, device_id, ring))

    def clean(self, name: str, device_id: int, overlap: Overlap, clean: int, proposal: int) -> None:
        """The device is clean up to ``clean`` (ticks) by this overlap, and would close at ``proposal``."""
        now = self._keeper.overlaps.get(name)
        if now is None or now.ring is not overlap.ring or now.settled is not overlap.settled:
            return
        standing = self._keeper.edition.rings[name]
        self._say(partial(self._register.report, name, device_id, Report(clean, proposal, standing.newest, standing.settled)))

    def _say(self, call: Callable[[], Awaitable[None]]) -> None:
        try:
            self._send.send_nowait(call)
        except trio.WouldBlock:
            return  # the next pass says it again

    async def run(self) -> None:
        async for call in self._receive:
            while True:
                try:
                    await call()
                    break
                except Unavailable:
                    await trio.sleep(self._again_s)

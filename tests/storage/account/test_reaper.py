"""The reaper over a cluster of real engines: all that was in a deleted account goes, nothing else does, wherever it is cut off."""

from __future__ import annotations

from collections import Counter

import pytest
import trio
from trio.testing import MockClock

from ring.daemon.worker import Busy, Idle, once
from ring.errors import Unavailable
from ring.names import Path
from ring.timestamp import Timestamp
from ring.wire.message import BytesBody
from storage.account.book import REAPED, ended, gone, reaped
from storage.account.reaper import HELP_S, Reaper
from storage.client.errors import AccountGone, AccountNotFound, ContainerNotFound, ObjectNotFound
from storage.client.interface import NewObject, Query, Row
from storage.client.node import BookHeader, Kind
from storage.client.reach import Settings
from tests.storage.client.ground import Distant, Ground, far_ground, make_device

ACCOUNT = Path("AUTH_a")
OTHER = Path("AUTH_b")
SETTINGS = Settings(pack_cut_bytes=4096, chunk_bytes=1000, repair_delay_s=0.1, container_cache_s=0.0)
DEVICES = 4
DELAY_S = 3600.0


class Field:
    def __init__(self, ground: Ground, lines: list[Distant]) -> None:
        self.ground = ground
        self.lines = lines
        self.storage = ground.storage
        self.reapers = [self.reaper(number) for number in range(DEVICES)]

    def reaper(self, number: int, **settings: float) -> Reaper:
        _, books = self.ground.engines[number]
        overlap = self.ground.rings.account
        settings = {"delay_s": DELAY_S, "settle_s": 300.0, **settings}
        return Reaper(self.ground.world, make_device(number), books, lambda: overlap, self.storage.reaping, **settings)  # type: ignore[arg-type]

    def primaries(self, account: Path = ACCOUNT) -> list[int]:
        ring = self.ground.rings.account.ring
        return [device.id for device in ring.primaries(ring.partition(account))]

    async def fill(self, account: Path, containers: int = 5, objects: int = 7) -> None:
        for number in range(containers):
            container = Path(account.account, f"c{number}")
            await self.storage.put_container(container, {})
            for name in range(objects):
                path = Path(account.account, container.container, f"o{name}")
                await self.storage.put_object(path, NewObject(), BytesBody(b"data" * (name * 400)))

    async def everybody(self) -> None:
        for reaper in self.reapers:
            await once(reaper)

    def live(self, account: Path) -> set[str]:
        """Objects that are not deleted at a majority.  (No replicators here: one that was cut off has not heard of it.)"""
        holders = Counter[bytes]()
        for store, _ in self.ground.engines:
            page, _ = store.index.page(b"", None, limit=10_000)
            holders.update(held.hash for held in page if held.kind is Kind.OBJECT)
        hasher = self.ground.rings.account.ring.hasher
        paths = [Path(account.account, f"c{number}", f"o{name}") for number in range(9) for name in range(30)]
        return {str(path) for path in paths if holders[hasher.hash(path)] > 1}

    async def is_reaped(self) -> bool:
        try:
            await self.storage.head_account(ACCOUNT)
        except AccountNotFound:
            return True
        except AccountGone:
            return False
        raise AssertionError("it is there")


@pytest.fixture
async def field(nursery: trio.Nursery, autojump_clock: MockClock) -> Field:
    ground, lines = await far_ground(nursery, SETTINGS, DEVICES)
    return Field(ground, lines)


def test_what_gone_means() -> None:
    made = BookHeader(ACCOUNT, Timestamp(10), None)
    assert not gone(made)
    deleted = ended(made, Timestamp(20))
    assert gone(deleted)
    assert not gone(reaped(deleted, Timestamp(30)))
    assert reaped(deleted, Timestamp(30)).metadata == {REAPED: ("true", Timestamp(30))}
    assert not gone(BookHeader(ACCOUNT, Timestamp(40), Timestamp(20)))
    assert not gone(BookHeader(ACCOUNT, None, None))


async def test_the_life_of_an_account(field: Field, autojump_clock: MockClock) -> None:
    await field.fill(ACCOUNT)
    await field.fill(OTHER, 1)
    await field.everybody()
    await field.storage.delete_account(ACCOUNT)
    await trio.sleep(DELAY_S - 10)
    await field.everybody()
    assert len(field.live(ACCOUNT)) == 35  # not yet
    first = field.reapers[field.primaries()[0]]
    assert first.accounts[ACCOUNT].containers_left == 5
    assert (first.progress().facts["accounts_left"], first.progress().facts["containers_left"]) == (1, 5)
    await trio.sleep(11)
    await field.everybody()
    assert field.live(ACCOUNT) == set()
    done = [reaper.accounts[ACCOUNT] for reaper in field.reapers if ACCOUNT in reaper.accounts]
    assert sum(progress.containers for progress in done) == 5
    assert sum(progress.objects for progress in done) == 35
    assert sum(progress.failed for progress in done) == 0
    for number in range(5):
        with pytest.raises(ContainerNotFound):
            await field.storage.head_container(Path("AUTH_a", f"c{number}"))
    assert not await field.is_reaped()
    with pytest.raises(AccountGone):
        await field.storage.put_account(ACCOUNT, {})
    await field.everybody()
    await trio.sleep(301)
    await field.everybody()
    assert await field.is_reaped()
    assert all(ACCOUNT not in reaper.accounts for reaper in field.reapers)
    assert len(field.live(OTHER)) == 7
    assert (await field.storage.head_account(OTHER)).container_count == 1


async def test_it_can_be_made_again_when_it_was_reaped(field: Field, autojump_clock: MockClock) -> None:
    await field.fill(ACCOUNT, 1, 1)
    await field.storage.put_account(ACCOUNT, {"x-account-meta-a": "old"})
    await field.storage.delete_account(ACCOUNT)
    await trio.sleep(DELAY_S + 1)
    await field.everybody()
    await field.everybody()
    await trio.sleep(301)
    await field.everybody()
    await field.fill(ACCOUNT, 2, 3)  # its containers make it anew
    meta = await field.storage.head_account(ACCOUNT)
    assert meta.metadata.get("x-account-meta-a") is None
    for _ in range(3):
        await trio.sleep(DELAY_S + HELP_S)
        await field.everybody()
    assert len(field.live(ACCOUNT)) == 6
    assert [row.name for row in (await field.storage.list_account(ACCOUNT, Query())).items] == ["c0", "c1"]
    await field.storage.delete_account(ACCOUNT)  # and it can go again
    with pytest.raises(AccountGone):
        await field.storage.head_account(ACCOUNT)


async def test_each_primary_takes_its_share(field: Field, autojump_clock: MockClock) -> None:
    await field.fill(ACCOUNT, 9, 1)
    await field.storage.delete_account(ACCOUNT)
    await trio.sleep(DELAY_S + 1)
    await field.everybody()
    shares = [reaper.accounts[ACCOUNT].containers for reaper in field.reapers if ACCOUNT in reaper.accounts]
    assert sum(shares) == 9
    assert len([share for share in shares if share]) >= 2


async def test_the_others_help_when_one_is_down(field: Field, autojump_clock: MockClock) -> None:
    await field.fill(ACCOUNT, 9, 2)
    await field.storage.delete_account(ACCOUNT)
    down, *up = field.primaries()
    field.lines[down].cut = True
    await trio.sleep(DELAY_S + 1)
    for number in up:
        await once(field.reapers[number])
    left = field.reapers[up[0]].accounts[ACCOUNT]
    for number in up:
        await once(field.reapers[number])
    assert left.containers_left > 0
    await trio.sleep(HELP_S)
    for number in up:
        await once(field.reapers[number])
    for number in up:
        await once(field.reapers[number])
    assert left.containers_left == 0
    await trio.sleep(301)
    for number in up:
        await once(field.reapers[number])
    assert await field.is_reaped()


async def test_below_a_majority_nothing_is_done_and_the_rest_goes_on(field: Field, autojump_clock: MockClock) -> None:
    await field.fill(ACCOUNT, 9, 2)
    await field.storage.delete_account(ACCOUNT)
    await trio.sleep(DELAY_S + 1)
    objects = field.ground.rings.objects[0].ring
    doomed = [device.id for device in objects.primaries(objects.partition(Path("AUTH_a", "c0", "o0")))][:2]
    for number in doomed:
        field.lines[number].cut = True
    for reaper in field.reapers:
        for _ in range(200):
            try:
                if isinstance(await reaper.work(), Idle):
                    break
            except Unavailable:
                continue
    assert "/AUTH_a/c0/o0" in field.live(ACCOUNT)
    for number in doomed:
        field.lines[number].cut = False
    await field.everybody()
    await field.everybody()
    assert field.live(ACCOUNT) == set()


async def test_rows_without_anything_behind_them_go_too(field: Field, autojump_clock: MockClock) -> None:
    """A listing that names an object that no primary knows, and an account that names a container that is not there."""
    await field.fill(ACCOUNT, 2, 1)
    for _, books in field.ground.engines:
        await books.merge_rows(Path("AUTH_a", "c0"), [Row("ghost", Timestamp.at(field.ground.world.clock.now()), 4, "e", "t")])
        await books.merge_rows(ACCOUNT, [Row("nowhere", Timestamp.at(field.ground.world.clock.now()))])
    await field.storage.delete_account(ACCOUNT)
    await trio.sleep(DELAY_S + 1)
    await field.everybody()
    await field.everybody()
    await trio.sleep(301)
    await field.everybody()
    assert await field.is_reaped()


async def test_a_replica_that_has_not_heard_of_the_account_again_deletes_nothing(field: Field, autojump_clock: MockClock) -> None:
    """It missed that the account was reaped and made anew: it asks a majority before it acts."""
    await field.fill(ACCOUNT, 1, 1)
    await field.storage.delete_account(ACCOUNT)
    await trio.sleep(DELAY_S + 1)
    await field.everybody()
    await field.everybody()
    await trio.sleep(301)
    behind = field.primaries()[2]
    field.lines[behind].cut = True
    for number in field.primaries()[:2]:
        await once(field.reapers[number])
    assert await field.is_reaped()
    await field.fill(ACCOUNT, 1, 3)
    await trio.sleep(20)
    field.lines[behind].cut = False
    _, books = field.ground.engines[behind]
    header = books.header(field.ground.rings.account.ring.hasher.hash(ACCOUNT))
    assert header is not None
    assert gone(header)
    await trio.sleep(HELP_S)
    await once(field.reapers[behind])
    await once(field.reapers[behind])
    assert len(field.live(ACCOUNT)) == 3


async def test_pages(field: Field, autojump_clock: MockClock) -> None:
    await field.fill(ACCOUNT, 5, 23)
    await field.storage.delete_account(ACCOUNT)
    await trio.sleep(DELAY_S + 1)
    for number in range(DEVICES):
        reaper = field.reaper(number, page_rows=4)
        while isinstance(unit := await reaper.work(), Busy):
            assert unit.items <= 4
    assert field.live(ACCOUNT) == set()


@pytest.mark.parametrize("step_s", [0.0007, 0.0016, 0.003, 0.007, 0.011])
async def test_killed_at_any_step_another_one_finishes(step_s: float, field: Field, autojump_clock: MockClock) -> None:
    await field.fill(ACCOUNT, 4, 5)
    await field.fill(OTHER, 1, 2)
    await field.storage.delete_account(ACCOUNT)
    await trio.sleep(DELAY_S + 1)
    kills = 0
    for attempt in range(2000):
        whole = 0
        for number in range(DEVICES):
            with trio.move_on_after(step_s * (1 + attempt / 10)) as scope:
                await once(field.reaper(number))
            kills += scope.cancelled_caught
            whole += not scope.cancelled_caught
        if whole == DEVICES and not field.live(ACCOUNT):
            break
    assert kills
    assert field.live(ACCOUNT) == set()
    await field.everybody()
    await trio.sleep(301)
    await field.everybody()
    assert await field.is_reaped()
    assert len(field.live(OTHER)) == 2
    with pytest.raises(ObjectNotFound):
        await field.storage.head_object(Path("AUTH_a", "c0", "o0"))

"""Writers of one key that race, over lines that lose, delay and cut: one register explains what all of them heard."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import pytest

from ring.names import Path
from ring.timestamp import Timestamp
from ring.world.interface import Buffer
from storage.client.fake_node import FakeObjects
from storage.client.node import Debt, Promised, Version, WriteReply
from tests.storage.client.races import Plan, play

SEEDS = int(os.environ.get("RACES", "20"))
CALM = Plan(lost=0, unheard=0, late=0, dies=0)
PLANS = {
    "calm": CALM,
    "calm, clocks apart": Plan(lost=0, unheard=0, late=0, dies=0, skew_s=2.0),
    "all conditional": Plan(lost=0, unheard=0, late=0, dies=0, conditional=1.0, operations=6),
    "lossy": Plan(),
    "lossy, clocks apart": Plan(skew_s=1.0, operations=7),
    "very lossy": Plan(lost=0.12, unheard=0.12, late=0.15, dies=0.2),
    "plain only": Plan(conditional=0.0, lost=0.1, late=0.1, skew_s=0.5),
    "one by one": Plan(spread_s=2.0, lost=0.1, late=0.15, skew_s=1.0),
}


@pytest.mark.parametrize("name", PLANS)
def test_one_register_explains_what_everybody_was_told(name: str) -> None:
    told = Counter[str]()
    for seed in range(SEEDS):
        race = play(seed, PLANS[name])
        assert race.wrong is None, str(race)
        told.update(race.told)
    if PLANS[name].conditional:
        assert told["conditional done"] and told["conditional failed"]
    if not PLANS[name].lost:  # nobody is in the way but writers: then nobody is left in the dark for long
        assert told["conditional unknown"] + told["write unknown"] <= sum(told.values()) // 10, told


# ---- a checker that notices nothing proves nothing


class KeepsNoPromise(FakeObjects):
    def _check(self, name_hash: bytes, version: Timestamp) -> None:
        return


class SaysNever(FakeObjects):
    """That what was superseded was never here, whatever it was."""

    async def put_small(self, version: Version, data: Buffer, debt: Debt | None) -> WriteReply:
        reply = await super().put_small(version, data, debt)
        return replace(reply, never=reply.newest > version.timestamp)

    async def promise(self, path: Path, ballot: Timestamp, ours: Sequence[Timestamp]) -> Promised:
        return replace(await super().promise(path, ballot, ours), never=True)


class GuessesWhatIsHeld(FakeObjects):
    """Promises, and says that nothing is here."""

    async def promise(self, path: Path, ballot: Timestamp, ours: Sequence[Timestamp]) -> Promised:
        return replace(await super().promise(path, ballot, ours), newest=None)


BROKEN = {
    KeepsNoPromise: ("calm, clocks apart", 150),
    SaysNever: ("lossy", 60),
    GuessesWhatIsHeld: ("calm", 50),
}


@pytest.mark.parametrize("devices", BROKEN)
def test_devices_that_break_their_promises_are_noticed(devices: type[FakeObjects]) -> None:
    name, seeds = BROKEN[devices]
    assert any(play(seed, PLANS[name], devices=devices).wrong for seed in range(seeds))

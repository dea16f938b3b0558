"""Horizon: up to which time the tombstones of a ring's data may be forgotten by everybody.  Pure.

A tombstone may go when nothing older of its name is left that could come back.  Nobody can see that alone, so all devices of a ring
agree on it, in two steps of the edition (edition.py):

    closed      from here on nobody writes at or below this time: front doors give later timestamps, devices refuse earlier ones.
                Then each device looks through all it holds, and reports when it is *clean* up to here: every version at or below
                it is held, exactly so, by all primaries; and what it is no primary of, it does not hold at all
    reclaimed   all devices that the ring names have reported that, so no device of the ring holds anything that a tombstone at or
                below this time would have to hide.  Tombstones up to here may be dropped

A device that was not there when something was reclaimed (its own mark, storage.sync.standing, is below) may hold what was deleted:
it compares, and neither answers for names nor brings anything to anybody until it is clean.

How far to close is the least of what the devices propose, each by its own clock: one clock that is ahead changes nothing.  Clocks
only choose when; that nothing comes back rests on the reports alone.

Rows follow what they are rows of: the horizon of containers is at most that of every object ring, that of accounts at most that of
containers.  So a row that an object still owes, or a container its account, cannot come late to where its tombstone was forgotten.

Neighbours: edition (keeps them), register (reports), agent (takes the steps), overlap (hands them out).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import msgspec

from ring.timestamp import Timestamp

if TYPE_CHECKING:
    from ring.service.edition import Edition
    from ring.service.overlap import Overlap
    from ring.service.register import Report


class Horizon(msgspec.Struct, frozen=True, array_like=True):
    """Ticks of 10 us since 1970; 0: none yet."""

    closed: int = 0
    reclaimed: int = 0

    def closes(self, timestamp: Timestamp) -> bool:
        """Whether nothing new may be written at this time."""
        return timestamp <= Timestamp(self.closed) if self.closed else False

    def forgets(self, timestamp: Timestamp) -> bool:
        """Whether a tombstone of this time may be gone."""
        return timestamp <= Timestamp(self.reclaimed) if self.reclaimed else False


NO_HORIZON = Horizon()


def closed_at(overlaps: Mapping[str, Overlap]) -> int:
    """Above this (ticks) every new timestamp has to be."""
    return max((overlap.horizon.closed for overlap in overlaps.values()), default=0)


def next_horizons(
    edition: Edition, overlaps: Mapping[str, Overlap], reports: Mapping[str, Mapping[int, Report]], step: int
) -> Mapping[str, Horizon]:
    """By ring, those of the next edition; the same as now when there is nothing to be done.  ``step``: do not close for less."""
    found = dict(edition.horizons)
    for name in sorted(overlaps, key=_order):
        old = found.get(name, NO_HORIZON)
        new = _advanced(edition, name, overlaps[name], reports.get(name, {}), old)
        if new.reclaimed == new.closed:
            new = _closed(new, min(_ceiling(name, found, overlaps), _proposal(overlaps[name], reports.get(name, {}))), step)
        if new != old:
            found[name] = new
    return found


def _advanced(edition: Edition, name: str, overlap: Overlap, reports: Mapping[int, Report], old: Horizon) -> Horizon:
    """``reclaimed`` follows ``closed`` when every device has said so by the rings in force."""
    if old.reclaimed == old.closed or overlap.moving:
        return old
    standing = edition.rings[name]
    for device_id in overlap.holders:
        report = reports.get(device_id)
        if report is None or report.clean < old.closed or (report.newest, report.settled) != (standing.newest, standing.settled):
            return old
    return Horizon(old.closed, old.closed)


def _closed(old: Horizon, at: int, step: int) -> Horizon:
    return Horizon(at, old.reclaimed) if at >= old.closed + step else old


def _proposal(overlap: Overlap, reports: Mapping[int, Report]) -> int:
    """The least; 0 while not all have made one."""
    if overlap.moving or not overlap.holders <= reports.keys():
        return 0
    return min((reports[device_id].proposal for device_id in overlap.holders), default=0)


def _ceiling(name: str, horizons: Mapping[str, Horizon], overlaps: Mapping[str, Overlap]) -> int:
    """How far what this is made from has come."""
    if name == "account":
        return horizons.get("container", NO_HORIZON).reclaimed
    if name == "container":
        return min((horizons.get(one, NO_HORIZON).reclaimed for one in overlaps if _order(one)[0] == 0), default=0)
    return 1 << 62


def _order(name: str) -> tuple[int, str]:
    return {"container": 1, "account": 2}.get(name, 0), name

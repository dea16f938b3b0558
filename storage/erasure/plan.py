"""What the reconstructor shall do for one object, and which object comes first.  Pure.

In: the fragments that devices report, who the primaries are, and who did not answer.  Out: steps.  The rules:

- Only the newest committed version is repaired, and only from fragments of exactly that version.
- A fragment that exists is pushed to where it belongs; only one that does not is rebuilt, from k others.
- A primary that did not answer may have its fragment: it is not rebuilt elsewhere, unless fewer fragments than a write leaves
  behind (quorum.py) are known to be there; then handoffs get the missing ones.
- A device has one fragment of a version, and another one takes its place.  So a device gets the one that belongs to it only when
  the one that it has is known to be elsewhere too, or enough others are without it: while rings move, every device may have
  another's.  When nothing else can be done and everybody answered, one such step is taken as long as k stay.
- What is where it does not belong goes when the primary that it belongs to has said that it has it, not before; and what is older,
  or staged and older, goes only by quorum.py's ``leftover``.
- With fewer than k fragments known nothing is done at all, and nothing goes: the rest may come back.

Objects are repaired in the order of the fragments that they may still lose.  Neighbours: quorum.py; the reconstructor does the
steps.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from storage.erasure.interface import Coding
from storage.erasure.quorum import Stamp, durable_fragments


@dataclass(frozen=True, slots=True, order=True)
class Held:
    """A fragment that a device says it has, whole and committed."""

    device_id: int
    index: int
    stamp: Stamp


@dataclass(frozen=True, slots=True)
class Push:
    """Send fragment ``index`` from one device to another."""

    index: int
    source_id: int
    target_id: int


@dataclass(frozen=True, slots=True)
class Rebuild:
    """Make fragment ``index`` from those of the sources, any k of them, and give it to a device.  All rebuildings of an object have
    the same sources, so one reading serves them all."""

    index: int
    target_id: int
    sources: tuple[Held, ...]


@dataclass(frozen=True, slots=True)
class Drop:
    """The device's fragment belongs elsewhere, and is there."""

    index: int
    device_id: int


Step = Push | Rebuild | Drop


@dataclass(frozen=True, slots=True)
class Plan:
    """Of one object; ``redundancy``: how many of the known fragments may be lost, below 0 when it cannot be read now."""

    stamp: Stamp
    redundancy: int
    missing: tuple[int, ...]  # fragments that nobody is known to have
    steps: tuple[Step, ...]

    @property
    def urgency(self) -> tuple[int, int]:
        """Sorts the most urgent first: what may lose least, and of equals what has most to do.  What cannot be read comes last:
        nothing can be done for it."""
        return (self.redundancy, -len(self.missing)) if self.redundancy >= 0 else (1 << 30, -self.redundancy)


def plan(
    coding: Coding,
    primaries: Sequence[int],
    held: Collection[Held],
    silent: Collection[int] = (),
    handoffs: Sequence[int] = (),
) -> Plan | None:
    """``primaries``: device ids by fragment index; ``silent``: devices that were asked and did not answer; ``handoffs``: devices
    that answered, in the order in which they stand in.  None when nobody has anything."""
    assert len(primaries) == coding.count
    stamp = max((one.stamp for one in held), default=None)
    if stamp is None:
        return None
    current = sorted(one for one in held if one.stamp == stamp and one.device_id not in silent)
    places: dict[int, list[int]] = {}
    for one in current:
        places.setdefault(one.index, []).append(one.device_id)
    redundancy = len(places) - coding.k
    missing = tuple(index for index in range(coding.count) if index not in places)
    if redundancy < 0:
        return Plan(stamp, redundancy, missing, ())
    sources = _sources(coding, primaries, current)
    steps: list[Step] = []
    for index in missing:
        if primaries[index] not in silent:
            steps.append(Rebuild(index, primaries[index], sources))
    for index, devices in sorted(places.items()):
        primary = primaries[index]
        if primary in devices:
            steps += [Drop(index, device) for device in devices if device != primary]
        elif primary not in silent:
            steps.append(Push(index, devices[0], primary))
    steps, there = _one_in_place_of_another(coding, steps, places, silent)
    steps += _stand_ins(coding, primaries, places, there, silent, handoffs, sources)
    return Plan(stamp, redundancy, missing, tuple(steps))


def in_order(plans: Iterable[Plan]) -> list[Plan]:
    """The most urgent first."""
    return sorted(plans, key=lambda one: one.urgency)


def _sources(coding: Coding, primaries: Sequence[int], current: Sequence[Held]) -> tuple[Held, ...]:
    """All to read from, one for each index, the primary's when it has it; data before parity: rebuilding takes the first k that are
    good."""
    best: dict[int, Held] = {}
    for one in current:
        if one.index not in best or primaries[one.index] == one.device_id:
            best[one.index] = one
    return tuple(best[index] for index in sorted(best))


def _one_in_place_of_another(
    coding: Coding, steps: Sequence[Step], places: dict[int, list[int]], silent: Collection[int]
) -> tuple[list[Step], set[int]]:
    """Without those steps that would leave too few different fragments, whatever becomes of the other steps; and which fragments
    there are after them."""
    own = {device: index for index, devices in places.items() for device in devices}
    left = {index: set(devices) for index, devices in places.items()}
    safe: list[Step] = []
    unsafe: list[Push | Rebuild] = []

    def different_without(device: int) -> int:
        return sum(bool(devices - {device}) for devices in left.values())

    for step in steps:
        if isinstance(step, Drop) or step.target_id not in own:
            safe.append(step)
        elif different_without(step.target_id) >= min(different_without(-1), durable_fragments(coding.k, coding.m)):
            left[own[step.target_id]].discard(step.target_id)
            safe.append(step)
        else:
            unsafe.append(step)
    if not silent and all(isinstance(step, Drop) for step in safe):
        for step in [step for step in unsafe if different_without(step.target_id) >= coding.k][:1]:
            left[own[step.target_id]].discard(step.target_id)
            safe.append(step)
    there = {index for index, devices in left.items() if devices}
    return safe, there | {step.index for step in safe if not isinstance(step, Drop)}


def _stand_ins(
    coding: Coding,
    primaries: Sequence[int],
    places: dict[int, list[int]],
    there: Collection[int],
    silent: Collection[int],
    handoffs: Sequence[int],
    sources: tuple[Held, ...],
) -> list[Step]:
    """Handoffs for primaries that are silent, when the others' fragments are fewer than a write leaves behind."""
    absent = [index for index in range(coding.count) if index not in there]
    short = max(durable_fragments(coding.k, coding.m) - len(there), 0)
    busy = {device for devices in places.values() for device in devices} | set(primaries)
    free = [device for device in handoffs if device not in busy and device not in silent]
    return [Rebuild(index, device, sources) for index, device in zip(absent[:short], free, strict=False)]

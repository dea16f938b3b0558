"""Checkers: what must hold of every history and of every cluster that came to rest.  Each returns the violations, in words.

``acked_puts_are_readable`` and ``no_delete_resurrects`` look at one name's operations at a time.  A write is over for certain when
it was acknowledged; one whose fate is unknown may take effect at any time after it was begun, or never.  So:

    a read that saw PUT P is wrong when some acknowledged write W began after P was over and was over before the read began
    a read that saw nothing is wrong when an acknowledged PUT was over before it, and no DELETE can have come after that PUT

A read that is wrong because of a DELETE is a resurrection; because of a PUT, a lost write.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import inf

from tests.sim import linearizable
from tests.sim.history import NOT_DONE, History, Kind, Operation, Outcome

STEPS_MAX = 20_000


def acked_puts_are_readable(history: History) -> list[str]:
    found = []
    for name, operations in history.by_name().items():
        writes = [o for o in operations if o.kind is not Kind.READ and o.outcome not in NOT_DONE]
        for read in _reads(operations):
            if read.value == 0:
                for put in writes:
                    if put.kind is Kind.PUT and put.outcome is Outcome.ACKED and put.end < read.start:
                        after = [o for o in writes if o.kind is Kind.DELETE and _over(o) > put.start and o.start < read.end]
                        if not after:
                            found.append(f"{name}: acknowledged, and not found:\n    {put}\n    {read}")
                            break
            else:
                found += _stale(name, writes, read, Kind.PUT, "an acknowledged PUT is hidden by an older one")
    return found


def no_delete_resurrects(history: History) -> list[str]:
    found = []
    for name, operations in history.by_name().items():
        writes = [o for o in operations if o.kind is not Kind.READ and o.outcome not in NOT_DONE]
        for read in _reads(operations):
            if read.value:
                found += _stale(name, writes, read, Kind.DELETE, "deleted, and back again")
    return found


def reads_see_what_was_written(history: History) -> list[str]:
    """Every body that was read is whole, and of a PUT of that name that was not refused."""
    found = []
    for name, operations in history.by_name().items():
        puts = {o.value: o for o in operations if o.kind is Kind.PUT}
        for read in _reads(operations):
            if read.value == 0:
                continue
            put = puts.get(read.value)
            if put is None or put.outcome in NOT_DONE or put.start > read.end:
                found.append(f"{name}: nobody wrote what was read:\n    {read}")
    return found


def one_register(history: History, checked: Callable[[str], bool] = lambda name: True) -> list[str]:
    """Each name is one register: plain and conditional writes, deletes and reads have an order that explains every answer.

    A history that is too hard to decide is not held against anybody; the other checkers look at it too."""
    found = []
    for name, operations in history.by_name().items():
        if not checked(name):
            continue
        try:
            wrong = linearizable.violation([_asked(o) for o in operations if o.outcome is not Outcome.REFUSED], steps_max=STEPS_MAX)
        except linearizable.TooHard:
            continue
        if wrong is not None:
            found.append(f"{name} is not one register: {wrong}")
    return found


_FATES = {
    Outcome.ACKED: linearizable.Fate.DONE,
    Outcome.UNKNOWN: linearizable.Fate.UNKNOWN,
    Outcome.FAILED: linearizable.Fate.FAILED,
}


def _asked(o: Operation) -> linearizable.Operation:
    label = f"{o.where} {o.detail}"
    fate = _FATES[o.outcome]
    if o.kind is Kind.READ:
        return linearizable.Operation(o.start, o.end, saw=o.value, fate=fate, label=label)
    writes = o.value if o.kind is Kind.PUT else linearizable.NOTHING
    return linearizable.Operation(o.start, o.end, writes, condition=o.condition, fate=fate, label=label)


def _reads(operations: Sequence[Operation]) -> list[Operation]:
    return [o for o in operations if o.kind is Kind.READ and o.outcome is Outcome.ACKED]


def _over(operation: Operation) -> float:
    return operation.end if operation.outcome is Outcome.ACKED else inf


def _stale(name: str, writes: Sequence[Operation], read: Operation, kind: Kind, what: str) -> list[str]:
    """Is there an acknowledged write of ``kind`` that came between the PUT which was read and the read?"""
    seen = [o for o in writes if o.kind is Kind.PUT and o.value == read.value]
    if not seen:
        return []
    for write in writes:
        if write.kind is kind and write.outcome is Outcome.ACKED and write.start > _over(seen[0]) and write.end < read.start:
            return [f"{name}: {what}:\n    {seen[0]}\n    {write}\n    {read}"]
    return []


def replicas_agree(roots: dict[tuple[str, int], dict[str, bytes]]) -> list[str]:
    """``roots``: by kind and partition, the root digest at each primary."""
    found = []
    for (kind, partition), answers in roots.items():
        if len(set(answers.values())) > 1:
            shown = ", ".join(f"{name} {root.hex()[:8] or 'empty'}" for name, root in answers.items())
            found.append(f"{kind} partition {partition}: replicas differ: {shown}")
    return found


def listings_equal_objects(listed: dict[str, tuple[int, str]], objects: dict[str, tuple[int, str]]) -> list[str]:
    """Both: name -> (size, etag)."""
    found = []
    for name in sorted(listed.keys() | objects.keys()):
        if name not in objects:
            found.append(f"{name} is listed and not there")
        elif name not in listed:
            found.append(f"{name} is there and not listed")
        elif listed[name] != objects[name]:
            found.append(f"{name} is listed as {listed[name]} and is {objects[name]}")
    return found


def totals_are_exact(
    listed: dict[str, dict[str, tuple[int, str]]],
    containers: dict[str, tuple[int, int]],
    account: tuple[int, int, int],
) -> list[str]:
    """What is listed, by container; what containers say (objects, bytes), and the account (containers, objects, bytes)."""
    found = []
    count = size = 0
    for container, items in listed.items():
        exact = len(items), sum(item_size for item_size, _ in items.values())
        if containers[container] != exact:
            found.append(f"container {container} counts {containers[container]} and lists {exact}")
        count, size = count + exact[0], size + exact[1]
    if account != (len(listed), count, size):
        found.append(f"the account counts {account}; its containers list {(len(listed), count, size)}")
    return found

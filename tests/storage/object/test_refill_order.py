"""A refill asks first for what has the fewest copies."""

from __future__ import annotations

from ring.names import Span
from storage.client.filling import Filled
from storage.object.refill import Plan, Want

POWER = 4


def want(partition: int, *order: int) -> Want:
    """One other device must vouch, of three replicas of which this device has one."""
    return Want("object", Span(POWER, partition), ((frozenset(order), 2),), order)


def take(plan: Plan, peer: int) -> list[int]:
    return [one.span.partition for one in plan.take(peer)]


def test_what_a_peer_that_is_gone_shares_comes_first() -> None:
    plan = Plan([want(0, 1, 2), want(1, 1, 3), want(2, 3, 2), want(3, 1, 2), want(4, 1, 3), want(5, 3, 1)])
    assert plan.peers == [1, 3]
    taken = plan.take(3)
    assert [one.span.partition for one in taken] == [2, 5]
    plan.gone(taken, 3, 0.0)  # it is being refilled itself, or does not answer
    assert take(plan, 1) == [1, 4, 5, 0, 3]
    assert take(plan, 2) == [2]


def test_who_vouches_again_is_believed_again() -> None:
    plan = Plan([want(0, 1, 2), want(1, 1, 3), want(2, 3, 1)])
    plan.gone(plan.take(3), 3, 0.0)
    plan.look(1e6)
    taken = plan.take(1)
    assert [one.span.partition for one in taken] == [1, 2, 0]
    plan.answered(taken, 1, Filled(whole=[0, 1, 2], left=[], pushed=0, pushed_bytes=0), 0.0)
    vouching = plan.take(3)
    filled = plan.answered(vouching, 3, Filled(whole=[1, 2], left=[], pushed=0, pushed_bytes=0), 0.0)
    assert [one.span.partition for one in filled] == [1, 2] and plan.left == 1
    assert plan._doubted == set()

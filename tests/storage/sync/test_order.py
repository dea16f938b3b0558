"""Which partition, and which version, is repaired first."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ring.names import Span
from storage.sync.order import Order, Push, is_mine, rank

OWN = 0


def span(partition: int) -> Span:
    return Span(4, partition)


def listed(order: Order, *holders: tuple[int, ...]) -> Order:
    for partition, others in enumerate(holders):
        order.add(span(partition), others)
    order.listed()
    return order


def walk(order: Order) -> list[int]:
    found = []
    while (one := order.next()) is not None:
        found.append(one.partition)
    return found


def test_of_equals_the_order_is_that_of_the_list_and_nothing_comes_before_all_is_listed() -> None:
    order = Order()
    for partition in range(4):
        order.add(span(partition), (1, 2))
        assert order.next() is None and order.fraction == 0
    order.listed()
    assert (order.next(), order.fraction) == (span(0), 0.25)
    assert walk(order) == [1, 2, 3] and order.fraction == 1.0 and order.urgency is None


def test_what_the_last_look_found_short_comes_first_in_the_next_pass() -> None:
    order = listed(Order(), (1, 2), (1, 2), (1, 2), (1, 2))
    assert walk(order) == [0, 1, 2, 3]
    order.found(span(3), 1)
    order.found(span(1), 2)
    order.found(span(2), 2)
    order.found(span(2), None)
    assert (order.short(), order.short(1)) == (2, 1)
    order.begin()
    assert walk(listed(order, (1, 2), (1, 2), (1, 2), (1, 2))) == [3, 1, 0, 2]
    order.begin()
    listed(order, (1, 2))  # what is not held any more is forgotten
    assert order.short() == 0


def test_what_devices_that_do_not_answer_share_comes_first_while_they_do_not() -> None:
    order = listed(Order(), (1, 2), (3, 4), (1, 4), (1, 3), (3, 1))
    order.away(3)
    assert order.next() == span(1)
    order.away(1)
    assert order.next() == span(3)
    order.answers(1)
    order.back(span(3), 2)
    assert walk(order) == [4, 0, 2, 3]  # first what was not looked at


def test_a_device_found_empty_makes_what_it_shares_urgent_also_what_was_looked_at() -> None:
    order = listed(Order(), (1, 2), (3, 4), (1, 4), (2, 3))
    assert [order.next(), order.next()] == [span(0), span(1)]
    order.empty(1, span(1))
    assert walk(order) == [0, 2, 3]
    order.empty(1, span(3))  # believed once a pass
    assert walk(order) == []


def test_two_empty_devices_first_what_both_held() -> None:
    order = listed(Order(), (1, 2), (1, 3), (2, 1), (3, 4), (3, 2))
    order.empty(1, span(15))
    order.empty(2, span(15))
    assert walk(order) == [0, 2, 1, 4, 3]


def test_who_has_more_to_do_comes_back_in_its_turn() -> None:
    order = listed(Order(), (1, 2), (1, 2), (1, 2))
    order.empty(1, span(15))
    one, other = order.next(), order.next()
    assert (one, other, order.urgency) == (span(0), span(1), 1) and one is not None and other is not None
    order.back(one, 2)
    assert order.urgency == 1  # one was not looked at
    order.back(other, 1)
    assert order.next() == span(1)
    order.back(other, 2)
    assert order.next() == span(2)
    order.back(span(2), 3)
    assert order.urgency == 2
    assert walk(order) == [0, 1, 2]
    order.back(Span(4, 9), 1)  # not of this pass
    assert walk(order) == []


def test_a_new_pass_forgets_the_old_one() -> None:
    order = listed(Order(), (1, 2), (1, 2))
    order.empty(1, span(0))
    order.begin()
    assert order.next() is None and order.start == b""
    assert walk(listed(order, (1, 2))) == [0]


def test_versions_with_the_fewest_copies_first() -> None:
    pushes = [Push(copies, bytes([number]), None, 7) for number, copies in enumerate((2, 1, 3, 1, 2))]
    assert [push.key[0] for push in rank(pushes)] == [1, 3, 0, 4, 2]


@given(st.binary(min_size=28, max_size=28), st.sets(st.integers(0, 9), min_size=1, max_size=6), st.integers(0, 9))
def test_one_of_the_holders_sends(key: bytes, holders: set[int], handoff: int) -> None:
    """Each judges for itself, from what it knows: the same holders."""
    senders = [own for own in holders if is_mine(key, own, holders - {own}, is_primary=True)]
    assert len(senders) == 1
    assert handoff in holders or not is_mine(key, handoff, holders, is_primary=False)
    assert is_mine(key, handoff, (), is_primary=False) and is_mine(key, handoff, (), is_primary=True)


@given(st.data())
def test_everything_is_looked_at_whatever_happens(data: st.DataObject) -> None:
    order = Order()
    holders = [tuple(sorted(data.draw(st.sets(st.integers(1, 5), min_size=2, max_size=2)))) for _ in range(8)]
    listed(order, *holders)
    looked: set[int] = set()
    for _ in range(300):
        one = order.next()
        if one is None:
            break
        looked.add(one.partition)
        match data.draw(st.sampled_from(["found", "short", "back", "away", "empty", "answers"])):
            case "found":
                order.found(one, None)
            case "short":
                order.found(one, 2)
            case "back" if data.draw(st.booleans()):
                order.back(one, data.draw(st.integers(1, 3)))
            case "away":
                order.away(data.draw(st.integers(1, 5)))
            case "empty":
                order.empty(data.draw(st.integers(1, 5)), one)
            case "answers":
                order.answers(data.draw(st.integers(1, 5)))
        assert 0 <= order.fraction <= 1
    else:
        return
    assert looked == set(range(8)) and order.fraction == 1

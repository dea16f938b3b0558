"""The pool's decisions, as a transcript."""

from __future__ import annotations

from ring.wire.pool import Pool


def test_newest_first_and_the_surplus_goes() -> None:
    pool: Pool[str] = Pool(idle_s=10, idle_max=2)
    assert pool.take("p", 0) is None
    assert pool.give("p", "a", 0) == []
    assert pool.give("p", "b", 1) == []
    assert pool.give("q", "x", 1) == []
    assert pool.give("p", "c", 2) == ["a"]
    assert pool.take("p", 3) == "c"
    assert pool.take("p", 3) == "b"
    assert pool.take("p", 3) is None
    assert pool.take("q", 3) == "x"


def test_what_was_idle_too_long_is_not_used() -> None:
    pool: Pool[str] = Pool(idle_s=10, idle_max=5)
    pool.give("p", "a", 0)
    pool.give("p", "b", 5)
    assert pool.give("p", "c", 12) == ["a"]
    assert pool.take("p", 13) == "c"
    assert pool.take("p", 15) is None
    assert pool.expire(14) == []
    assert pool.expire(15) == ["b"]
    assert pool.count("p") == 0


def test_forget_and_clear() -> None:
    pool: Pool[str] = Pool()
    for peer, connection in [("p", "a"), ("p", "b"), ("q", "c")]:
        pool.give(peer, connection, 0)
    assert pool.forget("p") == ["a", "b"]
    assert pool.forget("p") == []
    assert pool.clear() == ["c"]
    assert pool.clear() == []

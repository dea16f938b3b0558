"""The state machine against a dictionary: any requests, in any batches, drafted and applied."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ring.kv.interface import Delete, Event, LeaseId, Put, Unchanged
from ring.kv.log import Head, decode, encode_head, encode_record
from ring.kv.state import Deadlines, Draft, State

keys = st.sampled_from(["a", "a/b", "a/c", "b", "ö"])
requests = st.one_of(
    st.tuples(st.just("put"), keys, st.integers(0, 4)),
    st.tuples(st.just("delete"), keys, st.just(0)),
    st.tuples(st.just("compare"), keys, st.integers(0, 6)),
    st.tuples(st.just("grant"), st.just(""), st.just(0)),
    st.tuples(st.just("revoke"), st.just(""), st.integers(1, 4)),
)


@given(st.lists(st.lists(requests, max_size=6), max_size=6))
def test_drafts_applied_and_replayed_agree_with_a_dictionary(batches: list[list[tuple[str, str, int]]]) -> None:
    state = State()
    model: dict[str, tuple[int, int | None]] = {}  # modified, lease
    leases: set[int] = set()
    revision = 0
    granted = 0
    seen: dict[str, int] = {}  # from the events alone
    log = encode_head(Head(bytes(16), 1, 1, 0, 0), state)
    sequence = 0
    for batch in batches:
        draft = Draft(state)
        for verb, key, number in batch:
            match verb:
                case "put":
                    lease = number if number in leases else None
                    revision += 1
                    draft.transact([], [Put(key, b"v", LeaseId(lease) if lease else None)])
                    model[key] = (revision, lease)
                case "delete":
                    revision += key in model
                    draft.transact([], [Delete(key)])
                    model.pop(key, None)
                case "compare":
                    outcome = draft.transact([Unchanged(key, number)], [Put("a", b"c")])
                    assert outcome.succeeded == (model.get(key, (0, None))[0] == number)
                    if outcome.succeeded:
                        revision += 1
                        model["a"] = (revision, None)
                case "grant":
                    granted += 1
                    assert draft.grant(5.0) == granted
                    leases.add(granted)
                case _:
                    draft.revoke(LeaseId(number))
                    gone = [key for key, (_, lease) in model.items() if lease == number and number in leases]
                    revision += bool(gone)
                    for each in gone:
                        del model[each]
                    leases.discard(number)
            assert draft.revision == revision
        if draft.changes:
            sequence += 1
            log += encode_record(sequence, draft.revision, draft.changes)
        events: list[Event] = [event for change in draft.changes for event in state.apply(change)]
        for event in events:
            if event.entry is None:
                del seen[event.key]
            else:
                seen[event.key] = event.entry.modified
    for each_state in (state, _read(log)):
        assert {e.key: (e.modified, e.lease) for e in each_state.range("")} == model
        assert [e.key for e in each_state.range("a/")] == sorted(key for key in model if key.startswith("a/"))
        assert each_state.revision == revision
        assert set(each_state.leases) == leases
    assert seen == {key: modified for key, (modified, _) in model.items()}


def _read(log: bytes) -> State:
    found = decode(log).log
    assert found is not None
    return found.state


def test_deadlines() -> None:
    state = State()
    draft = Draft(state)
    lease, other = draft.grant(5.0), draft.grant(9.0)
    deadlines = Deadlines()
    for change in draft.changes:
        state.apply(change)
        deadlines.follow(change, 100.0)
    assert deadlines.next() == 105.0
    deadlines.renew(lease, state, 104.0)
    assert deadlines.next() == 109.0
    assert deadlines.lapsed(108.9) == []
    assert deadlines.lapsed(109.0) == [lease, other]
    deadlines.restart(state, 200.0)
    assert deadlines.next() == 205.0

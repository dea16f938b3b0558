"""Which mutants there are, and for each a seed that catches it (found by ``make sim-mutants``, replayed by CI)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tests.sim.mutants import asking, coding, keeping
from tests.sim.options import Options


@dataclass(frozen=True, slots=True)
class Mutant:
    apply: Callable[[Options], None]
    seed: int  # one that catches it; 0: none is known that does so for certain, ``make sim-mutants`` looks for one


MUTANTS: dict[str, Mutant] = {
    "ack-at-one-replica": Mutant(asking.ack_at_one_replica, 14),
    "believe-a-corrupt-fragment": Mutant(coding.believe_a_corrupt_fragment, 4),
    "blank-disk-is-new": Mutant(keeping.blank_disk_is_new, 5),
    "commit-before-enough-are-staged": Mutant(coding.commit_before_enough_are_staged, 9),
    "compaction-drops-live": Mutant(keeping.compaction_drops_live, 9),
    "delete-on-timeout": Mutant(asking.delete_on_timeout, 11),
    "drop-before-all-have-it": Mutant(keeping.drop_before_all_have_it, 2),
    "drop-the-ring-version-check": Mutant(asking.drop_the_ring_version_check, 4),
    "forget-the-old-ring": Mutant(asking.forget_the_old_ring, 13),
    "forget-the-row-update": Mutant(keeping.forget_the_row_update, 1),
    "forget-what-rots": Mutant(keeping.forget_what_rots, 1),
    "forget-what-a-shard-replaced": Mutant(keeping.forget_what_a_shard_replaced, 3),
    "handoff-counts": Mutant(asking.handoff_counts, 6),
    "let-go-of-rows-in-transit": Mutant(keeping.let_go_of_rows_in_transit, 3),
    "leftovers-by-a-minority": Mutant(coding.leftovers_by_a_minority, 3),
    "position-too-far": Mutant(keeping.position_too_far, 1),
    "quarantine-on-timeout": Mutant(keeping.quarantine_on_timeout, 6),
    "read-one-replica": Mutant(asking.read_one_replica, 1),
    "reclaim-early": Mutant(keeping.reclaim_early, 1),
    "reclaim-rows-early": Mutant(keeping.reclaim_rows_early, 5),
    "repair-older-over-newer": Mutant(asking.repair_older_over_newer, 1),
    "replay-stops-early": Mutant(keeping.replay_stops_early, 2),
    "report-once": Mutant(keeping.report_once, 1),
    "rows-as-they-come": Mutant(keeping.rows_as_they_come, 5),
    "settle-at-once": Mutant(asking.settle_at_once, 26),
    "skip-the-promise-check": Mutant(keeping.skip_the_promise_check, 37),
    "vote-before-it-is-refilled": Mutant(keeping.vote_before_it_is_refilled, 11),
    "skip-fsync": Mutant(keeping.skip_fsync, 2),
    "trust-a-corrupt-block": Mutant(keeping.trust_a_corrupt_block, 4),
}

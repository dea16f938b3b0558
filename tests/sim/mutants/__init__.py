"""Mutants: broken promises, put in from outside, that the checkers must notice.  A checker that notices none of them is no checker.

    table     which there are, what they break, and a seed that catches each
    asking    broken front doors and agents: quorums, rings, timeouts, repair
    coding    broken erasure-coded policies: staging, fragments, leftovers
    keeping   broken devices and their workers: logs, indexes, compaction, quarantine, listings

Each is a subclass or a wrapper that the cluster hands to production code in place of the real thing (``cluster.Options``); the
product has no switch for any of them.  ``make sim-mutants`` hunts all of them; CI replays the seeds of the table.
"""

from tests.sim.mutants.table import MUTANTS, Mutant

__all__ = ["MUTANTS", "Mutant"]

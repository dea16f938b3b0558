"""Storage policies by number and name; contradictions."""

from __future__ import annotations

import pytest

from ring.errors import BadInput
from ring.policy import Policies, Policy


def test_look_up() -> None:
    gold, tin = Policy(0, "gold", 3, default=True), Policy(2, "tin", 2)
    policies = Policies([tin, gold])
    assert list(policies) == [gold, tin]
    assert policies.default is gold
    assert policies.by_name("TIN") is tin
    assert policies.by_index(2) is tin
    assert policies.by_index(1) is None
    assert policies.by_name("iron") is None
    assert [p.ring_name for p in policies] == ["object", "object-2"]
    assert gold.pack_cut_bytes == 262144


def test_the_only_policy_is_the_default() -> None:
    assert Policies([Policy(0, "gold", 3)]).default.name == "gold"


@pytest.mark.parametrize(
    "policies",
    [
        [],
        [Policy(0, "a", 3), Policy(1, "b", 3)],
        [Policy(0, "a", 3, default=True), Policy(0, "b", 3)],
        [Policy(0, "a", 3, default=True), Policy(1, "A", 3)],
        [Policy(0, "", 3)],
        [Policy(-1, "a", 3)],
        [Policy(0, "a", 0.5)],
    ],
)
def test_contradictions_are_refused(policies: list[Policy]) -> None:
    with pytest.raises(BadInput):
        Policies(policies)

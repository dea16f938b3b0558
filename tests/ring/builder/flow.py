"""The fewest moves that bring a table to its quotas, by a solver that knows nothing of ours: min-cost flow (networkx).

partition -> (partition, region) -> (partition, zone) -> (partition, server) -> device -> sink.  An edge into a tier holds as many
replicas as the tier's limit, one into a device holds 1 and costs nothing if the device has the partition now, one into the sink
holds the device's quota.  What is paid is the number of replicas that change device over all passes: passes, and the rule that a
partition moves once in each, are not in it, so no sequence of passes can do with less.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import networkx as nx

from ring.builder.measure import Table
from ring.builder.quota import Tier, tiers_of
from ring.device import Device


def fewest_moves(table: Table, devices: Sequence[Device], quotas: Mapping[int, int], limits: Mapping[Tier, int]) -> int | None:
    """None when no table has these quotas within these limits."""
    graph = nx.DiGraph()
    held = [[int(row[partition]) for row in table if partition < len(row)] for partition in range(len(table[0]))]
    ids = {device.id for device in devices}
    for partition, holders in enumerate(held):
        graph.add_node((partition,), demand=-len(holders))
        for device in devices:
            if not quotas.get(device.id):
                continue
            place: tuple[object, ...] = (partition,)
            for tier in tiers_of(device)[:3]:
                graph.add_edge(place, (partition, tier), capacity=limits[tier])
                place = (partition, tier)
            graph.add_edge(place, device.id, capacity=1, weight=0 if device.id in holders else 1)
        assert ids >= set(holders)
    for device_id, quota in quotas.items():
        graph.add_edge(device_id, "sink", capacity=quota)
    graph.add_node("sink", demand=sum(map(len, held)))
    try:
        cost, _ = nx.network_simplex(graph)
    except nx.NetworkXUnfeasible:
        return None
    return int(cost)

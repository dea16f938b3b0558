"""Rings in service: which rings are in force, and how a process comes to a newer one while it runs.  Map:

    voters      whose majority counts (pure)         overlap    a ring in force and the one before it; where a path's replicas are
    edition     the numbered state of all rings      gate       what a device still takes from those who know an older edition
    keeper      the edition of this process, on disk and in RAM          follow     fetches a newer one from who has it
    register    the one order of editions, in kv     settling   when the ring before may be forgotten (pure)
    agent       makes true what was published: proposes, follows, confirms, settles
    errors      StaleRing

Every ring has a newest version V and a *settled* one S: the newest of which all data is known to be where it says.  While they
differ an operation needs a majority of the primaries of both.  Editions are numbered; each follows from the last by one step: a
ring is published (V changes), or it settled (S becomes V).  docs/ARCHITECTURE.md ("A new ring") has the argument why nothing is
lost.

Knows nothing of objects and listings.  Neighbours: ring.placement, ring.ringfile, ring.kv; storage.client uses overlaps and gate,
tools.deploy runs keeper and agent.
"""

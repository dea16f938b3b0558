"""The ring builder: devices and weights in, a table of which device holds which partition out.

    builder.py      Builder: the state that outlives a rebalance, and the operations of swift-ring-builder(1)
    quota.py        how much each tier should hold: by weight, by dispersion, and between the two by overload
    layout.py       the first placement: every tier as even as its quota, by systematic sampling
    rebalance.py    a table that exists is brought to its quotas by the fewest moves: moves.py straight ones and exchanges,
                    paths.py those that take others along
    measure.py      what a table is like: balance, dispersion, scatter
    certificate.py  the proof that goes with a table
    plan.py         what rebalances would move, and how long that takes
    loss.py         what is lost when devices, servers, zones fail together
    durability.py   what that comes to in a year
    plot.py         a picture of a ring
    builderfile.py  the builder file, byte for byte
    shuffle.py      chance from a seed

Only ``builderfile`` touches a file.  Needs numpy, so nothing that a node runs imports it; nodes read what
``Builder.ring`` makes (ring.placement) from a ring file (ring.ringfile).
"""

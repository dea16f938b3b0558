"""The ring builder: devices and weights in, a table of which device holds which partition out.

    builder.py      Builder: the state that outlives a rebalance, and the operations of swift-ring-builder(1)
    quota.py        how much each tier should hold: by weight, by dispersion, and between the two by overload
    layout.py       the first placement: every tier as even as its quota, by systematic sampling
    rebalance.py    a table that exists brought to its quotas by the fewest moves: moves.py (direct, exchanges), paths.py (through others)
    measure.py      what a table is like: balance, dispersion, scatter
    certificate.py  the proof that goes with a table
    builderfile.py  the builder file, byte for byte
    shuffle.py      chance from a seed

Only ``builderfile`` touches a file.  Needs numpy, so nothing that a node runs imports it; nodes read what
``Builder.ring`` makes (ring.placement) from a ring file (ring.ringfile).
"""

"""Every effect, behind one interface.

    interface   World: clock, net, disk, tables, rng, entropy, offload, process
    real/       on this machine
    sim/        on a virtual clock, from a seed, with faults
    paths.py    the rule for paths that both hold

Product code is given a World and calls nothing else that has effects.
"""

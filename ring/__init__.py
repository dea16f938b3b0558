"""Who holds what, and the ground that all daemons stand on.

    device.py      a disk of the cluster, as a ring names it
    names.py       account/container/object names, their hash, its partition
    placement.py   Ring: the devices that hold a partition, and those that stand in
    ringfile.py    ring files, byte for byte; envelope.py is what they share with builder files
    builder/       makes rings: devices and weights in, a table out
    swift/         ring and builder files of Swift, in and out
    policy.py      storage policies
    timestamp.py   what orders every write
    errors.py      the root of all errors
    service/       rings in service: editions, what is asked while a partition moves, when a ring has settled
    world/         every effect: clock, net, disk, tables, entropy, offload, process; real and simulated
    kv/            control state: transactions with compare, leases, watch
    wire/          HTTP/1.1 over streams
    daemon/        config, worker loop, pacing, logs, metrics, health

Imports nothing of the packages above it.
"""

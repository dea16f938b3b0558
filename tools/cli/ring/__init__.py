"""``ringfort ring FILE VERB``: make and change rings, with swift-ring-builder's words and exit codes.

group.py      the click group, the table of verbs, and how to add one
file.py       RingFile: the builder file, its ring beside it, backups, two operators at once
show.py       no verb: the table, and --json of it
search.py     which devices an operator means
devices.py    add, set_weight, set_info, set_region, set_zone, remove
settings.py   create, replicas, overload, hours, partition power
place.py      rebalance, validate, write_ring, write_builder
look.py       search, list_parts, dispersion, version, id
analysis.py   plan, certificate, plot
simulation.py simulate
publish.py    publish, status: rings in service
swift.py      import-swift, export-swift
amounts.py    bytes and hours as operators type and read them
"""

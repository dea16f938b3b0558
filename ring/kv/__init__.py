"""Control state: ordered keys, transactions with compare, leases, watch.

interface.py  the KV that everyone is given
state.py      the pure state machine: entries, revisions, compares, leases
memory.py     MemoryKV: in this process alone
local.py      LocalStore: one machine, a log on up to three disks; log.py is the log's bytes, and which log to believe
server.py     serving a store on a socket; remote.py is RemoteKV, the other end; wire.py their bytes, outbox.py their sender
feed.py       the watch feed of a process
view.py       View: a prefix in RAM, kept by watch
lifetime.py   a task that lives as long as a block
"""

"""Anti-entropy: what two replicas compare to find where they differ.

tree.py       the incremental set-hash tree of a device (objects, containers, accounts), kept in the table "tree"
order.py      what is looked at and repaired first          moving.py    whether a new ring has all that is here
standing.py   up to where a device is clean                  proposal.py  what it reports of that
reclaimer.py  the walks of the reclaimers                    comparing.py what they ask the other holders

Whoever writes keys into an index toggles the tree in the same transaction; the replicator (storage.client) compares roots,
then leaves, then keys.
"""

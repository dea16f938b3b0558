"""Anti-entropy: what two replicas compare to find where they differ.

tree.py     the incremental set-hash tree of a device (objects, containers, accounts), kept in the table "tree"

Whoever writes keys into an index toggles the tree in the same transaction; the replicator (storage.client) compares roots,
then leaves, then keys.
"""

"""Bytes and listings at rest.

    object/      the objects of a device: packs, files, index, auditor, replicator
    container/   what a container's listing is: merged pages, statistics
    account/     the same of accounts
    rows/        last-write-wins rows under both: commit log, overlay, tables
    sync/        set-hash trees, to find where two replicas differ
    erasure/     fragments of objects: codecs, layout, quorum, what to rebuild
    client/      Storage: quorums over nodes, local and remote; all that the rooms above may import

Imports ring only.
"""

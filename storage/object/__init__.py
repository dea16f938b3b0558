"""The objects of one device.

    device.py    its label, folders and tables; what is missing or foreign is out of service, never empty
    record.py    one record of the log, to the byte        segment.py   heads and names of its segments, and their order
    scan.py      finding records, harmed ones included     segments.py  the segments that there are, and reading from them
    compression.py  small values, when it pays
    packs.py     the log: segments, group commit, what a failed write means
    index.py     what is held and where: a cache of the log, and the merge rule
    files.py     large objects: a file each                upload.py    one on its way in
    reader.py    reading a version, every byte checked
    store.py     ObjectStore: the object half of a Node, its start, its background tasks
    compaction.py   a Worker: gives back the room of what is dead; victims.py: which segments; weights.py: what is alive where
    auditor.py   a Worker: finds what has rotted             removal.py  what is let go of or put aside
    staged.py    what is staged and refused (erasure-coded policies)         staging.py   the steps of such a write
    policy_device.py   the part of a device for one more policy           reconstructor.py  a Worker: brings fragments home
    due.py       when objects are to go                    expirer.py   a Worker: deletes them then

A record in the log commits everything.  ``store`` puts the others together; ``storage.client.local`` calls it.  Formats:
docs/formats/{device-label,pack,file,index}.md.
"""

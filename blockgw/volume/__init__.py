"""A volume is a log over immutable objects.

    extents     pure: which bytes of the volume lie where; layers of them
    layers      pure: what the layers hold, ranges through them, cutting one into segments
    logfile     codec: the write log's records
    writelog    the write log on two devices: group commit, replay
    segment     codec: segment and checkpoint objects
    blocks      reads of segment and image objects in blocks, with a cache
    register    the one mutable thing: epoch and checkpoint pointer in kv; who may write
    volume      Volume, a BlockDevice: log, layers, destaging, recovery
    agent       makes true what kv says of the volumes that this worker owns

The life of a write: copied into the log's buffer and the dirty layer (taken); appended to two devices and synced, then answered;
with its neighbours written as a segment object at a quorum (destaged); its log file removed.
"""

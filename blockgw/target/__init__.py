"""The iSCSI target: carries the bytes between a Stream and the sans-I/O cores, and performs what commands ask of a BlockDevice.

    target      Target: what is served under one IQN
    connection  one connection: receive, perform a whole batch, send once; slow requests beside it
    server      TargetServer: login, one session per initiator port, resets across sessions, limits

Cores: blockgw.iscsi and blockgw.scsi.  Devices come from blockgw.volume, through the ``lookup`` that TargetServer is given.
"""

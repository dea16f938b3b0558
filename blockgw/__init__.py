"""Blocks made of objects: volumes served over iSCSI, and the bytes of images.

    scsi/     pure: CDBs in, actions and sense out; one logical unit
    iscsi/    pure: login, negotiation, PDUs, one session
    target/   the async edge: sockets in, sessions served, volumes behind them
    volume/   a volume as a log over immutable objects, and the agent that makes kv's volumes true
    images/   bytes of images as immutable objects
    api/      the Block Storage API v3 (Cinder)
    client/   what compute may import

Imports ring, storage.client, identity.client and proxy.client.
"""

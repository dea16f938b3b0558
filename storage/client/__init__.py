"""The cluster's storage as its users see it.  Map:

    interface  Storage, the facade: objects by path, books of rows     errors   what can go wrong
    cluster    ClusterStorage, the facade over devices                 fake     the facade in RAM, for tests of the rooms above
    node       Node: one device of the cluster                         local    in this worker     remote   in another
    quorum     when replies settle a write or a read (pure)            handoff  who stands in (pure)   debts  who tells whom (pure)
    fanout     calls in flight, settled by replies
    objects    put get head delete post        reading  newest at a majority, its body     writing  one version to a verdict
    books      containers and accounts         pages    listings from a majority        large    streams of big bodies
    expiring   deletes what has expired        expiry when that is (pure)       reaping  empties deleted accounts
    payer      brings owed rows to containers  repair   mends what a read found stale   bodies   helpers over pieces
    reach      what all of them are made with: rings, nodes, timestamps, Settings
    watch      one timer for many waits        fake_node  a device's two engines in RAM
    protocol   the node protocol's messages and handshake (pure)    frames   its edge    server   a worker's devices, for others
    peer       the connections to another worker, for remote

A PUT: objects asks books for the container, reads the body, takes a timestamp; writing sends it to every primary through fanout;
each LocalNode makes it durable, then brings the row to its container device; a majority of replies is the verdict.
"""

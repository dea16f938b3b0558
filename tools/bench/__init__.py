"""Load against a running cloud, and measurements of single rooms.

objects   `make bench`: operations per second and cpu per operation, S3 and Swift
ring      `make bench-ring`: building, changing, reading rings, beside Swift (layouts: what; child, ours, swift: one run)
load      the load generator behind it: keep-alive connections, one epoll loop
signer    the client's side of S3 signatures (Signature Version 4)
wire packs rows iscsi ...   one room each: python -m tools.bench.NAME
"""

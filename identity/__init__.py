"""Who is calling and what they may do: Keystone v3 semantics over control state in ring.kv.

    records      what is stored: domains, projects, users, roles, assignments, services, endpoints, credentials
    store        reads from RAM (a kv view), changes as transactions; names are unique because a name is a key
    passwords    scrypt

    tokens/      Fernet tokens: no look-up to validate one
    catalog      services and endpoints as one project sees them
    login        methods in, token out (password, token, EC2 signature-free)
    bootstrap    the first domain, project, admin, roles and catalog of a new cloud
    api/         the HTTP API under /identity
    client/      what the other rooms may import

Imports ring (kv, wire, world) only.
"""

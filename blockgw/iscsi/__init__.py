"""iSCSI without I/O: bytes in, events and bytes out.  RFC 7143, one connection a session, error recovery level 0.

    crc32c       the digest
    pdu          basic header segments as structs, the Framer that cuts a stream into PDUs, what makes one malformed
    text         key=value pairs
    negotiation  the operational keys: rules, defaults, what comes out
    chap         CHAP, one-way and mutual
    login        the login phase, and what an acceptor needs to route a connection by peeking
    transfer     one command's data: immediate, unsolicited and solicited data-out, Data-In and residuals
    session      the full feature phase: command window, commands, task management, text, logout

A digest error, a gap, a PDU that is not what its place demands: the connection is dropped and the initiator logs in again (that is
what level 0 means).  Nothing here waits, and nothing grows with what a peer sends: see the limits in session.py and login.py.
Performed by blockgw.target.
"""

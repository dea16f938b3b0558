"""Fragment rules and codecs: how a large object of an erasure-coded policy becomes k + m fragments, and comes back from any k.

    interface.py        what a codec promises; Coding: k, m, segment size and code of a policy
    field.py            arithmetic in GF(2^8), and the matrices of the code
    combine.py          rows of a matrix times pieces, by vectors: where the built-in codec spends its time
    builtin.py          the codec that is always there
    liberasurecode.py   the codec of PyECLib with ISA-L: the same bytes, several times as fast
    codecs.py           which of the two a node uses
    layout.py           which bytes of an object are which bytes of which fragment
    fragment.py         what a fragment is a fragment of, its checksums, and their bytes
    writer.py           an object's bytes in, pieces out
    reader.py           which pieces to ask for next, and the object's bytes in order
    quorum.py           when a write is durable, and which version a read may show
    plan.py             which fragments to rebuild, where, and in which order
    errors.py           what can go wrong

Pure: nothing here reads a disk, a clock or a socket.  Words: an object is cut into *stripes*; each stripe is encoded into k + m
*pieces*; fragment i is the file of all pieces i.  Format: docs/formats/fragment.md.  Speed: docs/performance/erasure.md.
"""

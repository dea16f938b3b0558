"""SCSI for block devices, without I/O: a CDB goes in, an Action comes out; somebody else performs it.

    block    BlockDevice, what a target serves, and its fake in RAM
    sense    sense data and statuses; errors of the tree as sense
    cdb      the commands that are served: their bits, encode and decode
    action   what a command asks for: Read, Write, Flush, ... or Done, its answer
    pages    INQUIRY data, VPD pages, mode pages
    unit     LogicalUnit: CDB -> Action, by a table
    nexus    one initiator's view of a target: LUN addresses and unit attentions

Standards: SAM-5, SPC-4, SBC-3.  A command, or a bit of one, that is not fully served is refused.  Used by blockgw.iscsi.
"""

"""What can go wrong on one device.

Unavailable         DeviceOutOfService  DeviceAway
FormatError         BadRecord           ForeignRecord
DiskFault           (as it is: a read or write that the device could not do, or a block whose checksum is wrong)
"""

from __future__ import annotations

from ring.errors import FormatError, Unavailable


class DeviceOutOfService(Unavailable):
    """The device takes no requests: not mounted, not ours, or its disk failed.  That says nothing about what it holds."""


class DeviceAway(DeviceOutOfService):
    """Its disk is not mounted there, or another one is, or it takes no writes.  It may be back at any time."""


class BadRecord(FormatError):
    """No whole and unharmed record begins at this place of a segment."""


class ForeignRecord(BadRecord):
    """It is whole and unharmed, and of a kind that this program does not know.  Its segment is kept as it is."""

"""Server records (Compute API v2.1, "Servers"): as they lie in kv, and the words the API has for them.  Pure."""

from __future__ import annotations

import msgspec

SERVERS = "servers/"

# What is wanted.
ACTIVE = "active"
STOPPED = "stopped"
DELETED = "deleted"


class ServerRecord(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    project_id: str
    user_id: str
    name: str
    flavor_id: str
    image_id: str = ""  # "" when booted from a volume
    volume_id: str
    own_volume: bool = False  # made for this server and deleted with it
    wanted: str = ACTIVE
    vm_state: str = "building"  # building active stopped error
    task_state: str = ""  # scheduling spawning powering-off powering-on rebooting deleting
    task_since: float = 0.0  # wall seconds
    message: str = ""  # why it is in error
    metadata: dict[str, str] = {}
    created: float
    updated: float
    launched: float = 0.0


_STATUS = {"building": "BUILD", "active": "ACTIVE", "stopped": "SHUTOFF", "error": "ERROR"}
_POWER = {"active": 1, "stopped": 4}


def status(record: ServerRecord) -> str:
    """Nova's word, from vm_state and task_state."""
    if record.task_state == "rebooting":
        return "HARD_REBOOT"
    return _STATUS[record.vm_state]


def power_state(record: ServerRecord) -> int:
    return _POWER.get(record.vm_state, 0)


def decode(data: bytes) -> ServerRecord:
    return msgspec.json.decode(data, type=ServerRecord)


def encode(record: ServerRecord) -> bytes:
    return msgspec.json.encode(record)

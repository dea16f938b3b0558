"""One device: its label, its folders, and the tables that objects and books share.

Decides whether the folder it is given is the device that the ring means.  The label is written when a device is formatted and never
else, so an empty or foreign folder (a disk that is not mounted, or the wrong one) is out of service and is never taken for an empty
device.  Neighbours: ``store`` (objects) and ``storage.rows`` (books) work on an OpenDevice.  Format: docs/formats/device-label.md.
"""

from __future__ import annotations

import errno
import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field

import trio

from ring.errors import BadInput, Conflict, DiskFault, DiskFull, FormatError, NewerFormat
from ring.world.interface import Disk, Tables, World
from storage.object.errors import DeviceAway, DeviceOutOfService
from storage.object.health import Health, State
from storage.object.refill_mark import REFILL_PATH, RefillMark
from storage.object.upgrade import bring_up

LABEL_PATH = "device.json"
FORMATTING_PATH = "device.formatting"  # the label to be, while the folders are made
LABEL_MAGIC = "ringfort device"
FORMATS: Mapping[str, int] = {"label": 1, "pack": 3, "file": 1, "index": 3, "rows": 1}  # that this program writes; upgrade.py

PACKS = "packs"
FILES = "files"
QUARANTINE = "quarantine"
TABLES = "tables"
FILE_FOLDERS = tuple(f"{FILES}/{number:03x}" for number in range(4096))

OBJECT_TABLES = ("index", "due", "owed", "tree", "state")
BOOK_TABLES = ("rows", "books", "book_state")
TABLE_NAMES = OBJECT_TABLES + BOOK_TABLES

_IGNORED = frozenset({"lost+found"})  # what mkfs leaves behind


@dataclass(frozen=True, slots=True)
class Label:
    """``disk_id``: of one that took another's place, so that the two can be told apart; "" otherwise."""

    cluster_id: str
    device_id: int
    formats: Mapping[str, int] = field(default_factory=lambda: dict(FORMATS))
    disk_id: str = ""

    def encode(self) -> bytes:
        body = {
            "magic": LABEL_MAGIC,
            "cluster_id": self.cluster_id,
            "device_id": self.device_id,
            "formats": dict(self.formats),
        }
        if self.disk_id:
            body["disk_id"] = self.disk_id
        return (json.dumps({**body, "checksum": _checksum(body)}, indent=1, sort_keys=True) + "\n").encode()

    @classmethod
    def decode(cls, data: bytes) -> Label:
        """FormatError when it is not a label, is damaged, or names a format newer than this program knows."""
        try:
            body = json.loads(data)
            checksum = body.pop("checksum")
            formats = {str(k): int(v) for k, v in body["formats"].items()}
            label = cls(str(body["cluster_id"]), int(body["device_id"]), formats, str(body.get("disk_id", "")))
            magic = body["magic"]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise FormatError(f"{LABEL_PATH} is not a device label") from error
        if magic != LABEL_MAGIC or checksum != _checksum(body):
            raise FormatError(f"{LABEL_PATH} is damaged", hint="restore it from a backup of the label; the data is still there")
        for name, version in label.formats.items():
            if version > FORMATS.get(name, 0):
                raise NewerFormat(f"what the device calls {name}", version, FORMATS.get(name, 0), path=LABEL_PATH)
        return label


class OpenDevice:
    """A device whose label is right.  Objects and books on it share ``tables`` (TABLE_NAMES) and its fate: whoever works on it
    tells of errors (``erred``, ``fail``) and asks before it goes on (``check`` and its kin).  ``health`` decides."""

    __slots__ = ("device_id", "disk", "health", "label", "losses", "tables")

    def __init__(self, disk: Disk, tables: Tables, device_id: int, label: Label, health: Health | None = None) -> None:
        self.disk = disk
        self.tables = tables
        self.device_id = device_id
        self.label = label
        self.health = health or Health(now=trio.current_time())
        self.losses = 0  # that were marked since it was opened

    @property
    def fault(self) -> str:
        """Why it is out of service; "" while it serves."""
        return self.health.reason if self.health.out else ""

    def fail(self, reason: str, error: BaseException | None = None) -> None:
        """Take it out of service until it is opened anew.  The first reason stays.  ``error``: what the system said, if it did."""
        if isinstance(error, OSError):
            self.health.erred(error, reason, trio.current_time())
        if not self.health.out:
            self.health.failed(reason, trio.current_time())

    async def lost(self, reason: str) -> None:
        """It lacks what it acknowledged: out of service, and no voter until others have brought it back."""
        self.losses += 1
        try:
            await mark_refill(self.disk, reason)
        except OSError:
            self.health.stays_out = True  # opened anew it would say "never heard of it"
        self.fail(reason)

    async def lacks(self, reason: str) -> None:
        """A start found that some of what was acknowledged is not here any more: no voter until others have brought it back.  To be
        written down before that is out of sight.  OSError."""
        self.losses += 1
        await mark_refill(self.disk, reason)

    def erred(self, error: BaseException | None, place: str) -> None:
        """An operation failed; that may be too much for the device.  ``place``: what it was done to."""
        if isinstance(error, OSError) and not self.health.out:
            self.health.erred(error, place, trio.current_time())

    def check(self) -> None:
        """Raises DeviceOutOfService once it has failed."""
        if self.health.out:
            raise DeviceOutOfService(f"device {self.device_id} is out of service: {self.health.reason}")

    def check_writable(self) -> None:
        """Before anything is written, also what makes room.  DeviceOutOfService."""
        if not self.health.takes_writes:
            raise DeviceOutOfService(f"device {self.device_id} takes no writes: {self.health.reason}")

    def admit(self, size: int, *, promised: bool = False) -> None:
        """Before ``size`` bytes of new data come; ``promised``: to a conditional write.  DeviceOutOfService; DiskFull when they
        would use what is kept back."""
        if not (self.health.admits_promised if promised else self.health.admits)(size):
            self.check_writable()
            why = self.health.reason if self.health.state is State.FULL else f"it has no room for {size} bytes more"
            raise DiskFull(f"device {self.device_id} takes no new data: {why}", hint="free space, or add devices")

    async def close(self) -> None:
        """Close the tables, which both stores have let go of."""
        await self.tables.close()


async def format_device(disk: Disk, cluster_id: str, device_id: int, *, disk_id: str = "") -> None:
    """Make an empty root a device.  A crash on the way leaves a root that can be formatted again.

    ``disk_id``: it takes the place of one that is lost, and is not trusted before it was refilled.

    Raises Conflict when something is there, BadInput when the file system cannot hold a device; nothing was changed then."""
    await disk.anchor()
    names = [name for name in await disk.list_dir("") if name not in _IGNORED]
    if names and (LABEL_PATH in names or FORMATTING_PATH not in names):
        raise Conflict(
            f"{disk.root} is not empty (it has {names[0]!r})",
            hint="a device is formatted once, in an empty folder; remove what is there if it is not needed",
        )
    await _check_file_system(disk)
    await disk.replace_file(FORMATTING_PATH, Label(cluster_id, device_id, disk_id=disk_id).encode())
    if disk_id:
        await mark_refill(disk, "its disk was replaced")
    await disk.make_dirs_many([PACKS, QUARANTINE, *FILE_FOLDERS])
    await disk.rename(FORMATTING_PATH, LABEL_PATH)


async def open_device(
    world: World, root: str, cluster_id: str, device_id: int, *, disk_id: str = "", health: Health | None = None
) -> OpenDevice:
    """Open the device in the folder ``root``.

    Raises DeviceOutOfService when there is no label, or another device's; FormatError when it is damaged or too new."""
    disk = world.open_disk(root)
    label = await find_label(disk, cluster_id, device_id, disk_id)
    try:
        if not await takes_writes(disk):
            raise DeviceAway(f"{root} takes no writes: it is mounted read-only", hint="what made it so?  See the kernel's log")
        label = await bring_up(disk, label, LABEL_PATH, FORMATS)
        tables = await _open_tables(disk)
    except OSError as error:
        raise DeviceOutOfService(f"the tables of {root} cannot be opened: {error}") from error
    return OpenDevice(disk, tables, device_id, label, health)


async def find_label(disk: Disk, cluster_id: str, device_id: int, disk_id: str = "") -> Label:
    """Keep to the folder that is there now, if it is the device; else the disk is barred, so that nothing is written to a folder
    that is in its place.

    Raises DeviceAway when there is no label, or another device's, or it cannot be read; FormatError when it is damaged or too
    new."""
    try:
        await disk.anchor()
        label = await read_label(disk, cluster_id, device_id, disk_id)
    except FileNotFoundError:
        disk.bar()
        raise DeviceAway(f"{disk.root} is not there", hint="is its disk mounted?") from None
    except OSError as error:
        disk.bar()
        raise DeviceAway(f"the label of {disk.root} cannot be read: {error.strerror or error}") from error
    except BaseException:
        disk.bar()
        raise
    return label


async def read_label(disk: Disk, cluster_id: str, device_id: int, disk_id: str = "") -> Label:
    """The label, when it is this device's, and this very disk's where ``disk_id`` is given.  As ``find_label``, and OSError when it
    cannot be read."""
    root = disk.root
    try:
        data = await disk.read_file(LABEL_PATH)
    except FileNotFoundError:
        raise DeviceAway(
            f"{root} is not a device: it has no label",
            hint="is its disk mounted?  A new disk is formatted before it is used",
        ) from None
    label = Label.decode(data)
    if label.cluster_id != cluster_id or label.device_id != device_id:
        raise DeviceAway(
            f"{root} is device {label.device_id} of cluster {label.cluster_id}, not device {device_id} of cluster {cluster_id}",
            hint="the wrong disk is mounted there",
        )
    if disk_id and label.disk_id != disk_id:
        raise DeviceAway(
            f"{root} is a disk that was replaced: what it holds is out of date",
            hint="mount the disk that took its place, or make this one empty and replace the device again",
        )
    return label


async def is_to_be_refilled(disk: Disk) -> bool:
    """OSError."""
    return await disk.info(REFILL_PATH) is not None


async def clear_refill(device: OpenDevice, losses: int) -> None:
    """What it had lost is here again.  ``losses``: as counted when the refill began; the mark of a later one stays.  DiskFault."""
    if device.losses != losses:
        raise DiskFault(f"device {device.device_id} has lost more while it was refilled")
    try:
        await device.disk.unlink(REFILL_PATH)
    except FileNotFoundError:
        return
    except OSError as error:
        device.erred(error, REFILL_PATH)
        raise DiskFault(f"device {device.device_id}: {REFILL_PATH} cannot be removed: {error.strerror or error}") from error


async def mark_refill(disk: Disk, reason: str) -> None:
    """From now on, and over restarts: the device may lack what it acknowledged.  Before that counts, others bring it.  OSError."""
    await disk.replace_file(REFILL_PATH, RefillMark(reason).encode())


async def read_refill(disk: Disk) -> RefillMark | None:
    """None when it lacks nothing.  OSError, NewerFormat."""
    try:
        return RefillMark.decode(await disk.read_file(REFILL_PATH))
    except FileNotFoundError:
        return None


async def takes_writes(disk: Disk) -> bool:
    """By trying: a file system that went read-only after an error still says that it is mounted for writing.  OSError."""
    try:
        probe = await disk.open_unnamed("")
    except OSError as error:
        if error.errno == errno.EROFS:
            return False
        raise
    await probe.close()
    return True


async def _open_tables(disk: Disk) -> Tables:
    """Damaged ones are put aside: what they held is made anew from the logs and from other replicas."""
    try:
        return await disk.open_tables(TABLES, TABLE_NAMES)
    except FormatError:
        taken = set(await disk.list_dir(QUARANTINE))
        number = next(number for number in range(len(taken) + 1) if f"{TABLES}-{number}" not in taken)
        await mark_refill(disk, "its tables were damaged")  # objects are made anew from the log; books are not
        await disk.rename(TABLES, f"{QUARANTINE}/{TABLES}-{number}")
        return await disk.open_tables(TABLES, TABLE_NAMES)


async def _check_file_system(disk: Disk) -> None:
    """An unnamed file with an extended attribute, gone when it is closed."""
    try:
        probe = await disk.open_unnamed("")
        try:
            await probe.set_xattr("ringfort", b"probe")
        finally:
            await probe.close()
    except OSError as error:
        if error.errno not in (errno.ENOTSUP, errno.EOPNOTSUPP, errno.EISDIR, errno.ENOENT, errno.EINVAL):
            raise
        raise BadInput(
            f"the file system of {disk.root} has no user extended attributes or unnamed files ({error.strerror})",
            hint="use ext4 or xfs",
        ) from error


def _checksum(body: Mapping[str, object]) -> str:
    canonical = json.dumps(body, sort_keys=True, separators=(",", ":")).encode()
    return f"{zlib.crc32(canonical):08x}"

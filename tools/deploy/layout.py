"""What lies where below a cloud's folder, and ``cloud.json``, the record of what the folder is.

cloud.json      magic, format version, cluster id, counts; written last on the first run, and raised by the first start of a newer
                program, before it touches anything else: so an older one refuses the folder at once
ringfort.toml   settings, if the operator wrote some (settings.py)
lock            held (flock) by the main process and its workers
ready           present while the cloud serves
secrets/        root.key cluster.key hash.json admin.json (all 0600)
rings/          NAME.builder and NAME.ring for account, container, object and object-N, as the cloud was made
rings/in-force  edition.json and NAME.VERSION.ring: the rings that the cloud goes by
rings/published NAME.ring that was published last, and its NAME.builder
devices/dN/     the devices' roots
disks.json      which disk is device N, where one took another's place
run/            unix sockets
logs/           a log a worker, and what it held before as FILE.1
consoles/       the guests' serial consoles, for libvirt's daemons to reach; the folders above are 0700
clouds.yaml openrc s3.env    for clients, 0600
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import msgspec

from ring.errors import BadInput, FormatError

MAGIC = "ringfort-cloud"
FORMAT = 2  # goes up with any format on disk below the folder: tests/tools/deploy/test_cloud_layout.py
RINGS = ("account", "container", "object")
SECRETS = ("root.key", "cluster.key", "hash.json", "admin.json")


class _Head(msgspec.Struct, frozen=True):
    """What every format of the record has."""

    magic: str
    format: int


class PolicyRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A storage policy beside policy 0 (tools.deploy.policies).  It never changes."""

    name: str
    replicas: int
    k: int = 0  # 0: whole copies
    m: int = 0
    default: bool = False
    consistency: str = "quorum"


class CloudRecord(msgspec.Struct, frozen=True, kw_only=True):
    magic: str = MAGIC
    format: int = FORMAT
    cluster_id: str
    devices: int
    replicas: int
    part_power: int  # that its rings began with; which they have now, they say themselves
    policies: tuple[PolicyRecord, ...] = ()  # from policy 1 on

    @property
    def rings(self) -> tuple[str, ...]:
        """The names of its rings."""
        return (*RINGS, *(f"object-{index}" for index in range(1, len(self.policies) + 1)))


@dataclass(frozen=True, slots=True)
class Layout:
    root: Path

    @property
    def record(self) -> Path:
        return self.root / "cloud.json"

    @property
    def creating(self) -> Path:
        """Present from the beginning of the first run to its end."""
        return self.root / "creating"

    @property
    def lock(self) -> Path:
        return self.root / "lock"

    @property
    def ready(self) -> Path:
        return self.root / "ready"

    @property
    def secrets(self) -> Path:
        return self.root / "secrets"

    @property
    def rings(self) -> Path:
        return self.root / "rings"

    @property
    def in_force(self) -> Path:
        """The edition of rings that the cloud goes by (ring.service.keeper)."""
        return self.rings / "in-force"

    @property
    def published(self) -> Path:
        """Rings that shall be in force."""
        return self.rings / "published"

    @property
    def run(self) -> Path:
        return self.root / "run"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def consoles(self) -> Path:
        return self.root / "consoles"

    def log(self, worker: int) -> Path:
        return self.logs / f"worker-{worker}.log"

    def device(self, number: int) -> Path:
        return self.root / "devices" / f"d{number}"

    @property
    def disks(self) -> Path:
        return self.root / "disks.json"

    def disk_id(self, number: int) -> str:
        """Of the disk that took the place of another as device ``number``; "" when none did.  FormatError."""
        return self.disk_ids().get(number, "")

    def disk_ids(self) -> dict[int, str]:
        try:
            return msgspec.json.decode(self.disks.read_bytes(), type=dict[int, str])
        except FileNotFoundError:
            return {}
        except msgspec.DecodeError as error:
            raise FormatError(
                f"{self.disks} cannot be read: {error}", hint="it says which disk is which device: restore it"
            ) from error

    def worker_socket(self, number: int) -> str:
        return str(self.run / f"worker-{number}.sock")

    def node_socket(self, number: int) -> str:
        """Where a worker serves its devices to the others."""
        return str(self.run / f"nodes-{number}.sock")

    def handoff_socket(self, number: int) -> str:
        return str(self.run / f"iscsi-{number}.sock")

    @property
    def speed(self) -> Path:
        """What clients leave to background work (load.py)."""
        return self.run / "speed"

    @property
    def kv_socket(self) -> str:
        return str(self.run / "kv.sock")

    def read_record(self) -> CloudRecord | None:
        """None when there is none.  FormatError when it is not ours or newer than this program."""
        try:
            data = self.record.read_bytes()
        except FileNotFoundError:
            return None
        try:
            head = msgspec.json.decode(data, type=_Head)
            if head.magic != MAGIC:
                raise FormatError(f"{self.record} is not a cloud's record", hint="choose another --data")
            if head.format > FORMAT:
                raise FormatError(
                    f"{self.root} has format {head.format}, this program knows up to {FORMAT}",
                    hint="it was written by a newer ringfort: upgrade this one",
                )
            return msgspec.json.decode(data, type=CloudRecord)
        except msgspec.DecodeError as error:
            raise FormatError(f"{self.record} cannot be read: {error}", hint="restore it, or choose another --data") from error

    def raised(self, record: CloudRecord) -> CloudRecord:
        """The record says from now on that this program was here.  OSError."""
        if record.format < FORMAT:
            record = msgspec.structs.replace(record, format=FORMAT)
            write_file(self.record, msgspec.json.encode(record), mode=0o644)
        return record

    def make_private(self) -> None:
        """At every start: the folders that hold secrets, data and sockets are the cloud's alone."""
        for folder in (self.secrets, self.rings, self.root / "devices", self.run, self.logs):
            folder.mkdir(mode=0o700, exist_ok=True)
            folder.chmod(0o700)
        self.consoles.mkdir(mode=0o755, exist_ok=True)


class Admin(msgspec.Struct, frozen=True, kw_only=True):
    """The first user, as kept in secrets/admin.json."""

    user: str
    password: str
    project: str
    access_key: str
    secret_key: str


class HashSecrets(msgspec.Struct, frozen=True, kw_only=True):
    """The prefix and suffix of the name hash, hex, as kept in secrets/hash.json."""

    prefix: str
    suffix: str


def write_file(path: Path, data: bytes, *, mode: int = 0o600) -> None:
    """Atomic and durable; never wider open than ``mode``, not even for a moment."""
    partial = path.with_name(f".{path.name}.partial")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    try:
        os.fchmod(descriptor, mode)
        view = memoryview(data)
        while view:
            view = view[os.write(descriptor, view) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    os.replace(partial, path)
    sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_secret(path: Path) -> bytes:
    """BadInput when others may read it."""
    status = path.stat()
    if status.st_mode & 0o077:
        raise BadInput(f"{path} can be read by others (mode {status.st_mode & 0o777:o})", hint=f"chmod 600 {path}")
    return path.read_bytes()

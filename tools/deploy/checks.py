"""What is wrong with the options, DIR or the ports, before anything is changed: each problem is one clear line and a hint.

Leaves no trace; neighbours: ``supervisor`` (asks, in order), ``layout`` (what a cloud's folder holds).
"""

from __future__ import annotations

import errno
import os
import re
import socket
from dataclasses import dataclass
from pathlib import Path

from ring.errors import BadInput, Conflict, RingfortError
from tools.deploy.layout import SECRETS, CloudRecord, Layout, PolicyRecord, read_secret
from tools.deploy.policies import added
from tools.deploy.settings import FILE

DEVICES_DEFAULT = 4
REPLICAS_DEFAULT = 3
DEVICES_MAX = 4096
WORKERS_MAX = 256
NO_CLOUD_YET = frozenset((FILE, "lost+found", "lock", ".creating.partial"))  # in a folder that may become a cloud
_HOST = re.compile(r"[A-Za-z0-9._:\-]+")


@dataclass(frozen=True, slots=True)
class Options:
    data: Path
    devices: int | None = None  # None: as DIR has, or DEVICES_DEFAULT
    replicas: int | None = None  # None: as DIR has, or REPLICAS_DEFAULT where there are as many devices
    workers: int | None = None  # None: one per core
    object_port: int = 8080
    control_port: int = 8000
    iscsi_port: int = 3260
    bind: str = "127.0.0.1"
    public_host: str = ""  # "": ``bind``
    policies: tuple[PolicyRecord, ...] = ()  # to be there, beside policy 0

    @property
    def ports(self) -> dict[str, int]:
        return {"object": self.object_port, "control": self.control_port, "iscsi": self.iscsi_port}

    def counts(self) -> tuple[int, int]:
        """Devices and replicas of a new cloud."""
        devices = DEVICES_DEFAULT if self.devices is None else self.devices
        return devices, min(REPLICAS_DEFAULT, devices) if self.replicas is None else self.replicas


@dataclass(frozen=True, slots=True)
class Sockets:
    """Listening, in the order of ``Options.ports``."""

    objects: socket.socket
    control: socket.socket
    iscsi: socket.socket

    def close(self) -> None:
        for one in (self.objects, self.control, self.iscsi):
            one.close()


def check_options(options: Options, record: CloudRecord | None) -> None:
    """BadInput for what can never be, Conflict for what the cloud that is there (``record``) is not."""
    devices, replicas = options.counts()
    if devices < 1:
        raise BadInput(f"--devices {devices}: at least 1", hint="a device is a folder under DIR/devices")
    if devices > DEVICES_MAX:
        raise BadInput(f"--devices {devices}: at most {DEVICES_MAX} on one machine", hint="give fewer")
    if replicas < 1:
        raise BadInput(f"--replicas {replicas}: at least 1", hint="3 survive the loss of two devices")
    if record is not None:
        for name, wanted, there in (
            ("devices", options.devices, record.devices),
            ("replicas", options.replicas, record.replicas),
        ):
            if wanted not in (None, there):
                raise Conflict(f"{options.data} has {there} {name}, not {wanted}", hint=f"leave --{name} out to resume it")
    elif replicas > devices:
        default = " (the default)" if options.devices is None else ""
        raise BadInput(f"--replicas {replicas} > --devices {devices}{default}", hint="every replica needs a device of its own")
    new = record if record is not None else CloudRecord(cluster_id="", devices=devices, replicas=replicas, part_power=0)
    added(new, options.policies)
    if options.workers is not None and not 1 <= options.workers <= WORKERS_MAX:
        raise BadInput(f"--workers {options.workers}: 1 to {WORKERS_MAX}", hint="leave it out for one per core")
    if options.public_host and not _HOST.fullmatch(options.public_host):
        raise BadInput(f"--public-host {options.public_host!r} is not a host", hint="a name or an address, without a port")
    taken: dict[int, str] = {}
    for name, port in options.ports.items():
        if not 0 <= port <= 65535:
            raise BadInput(f"--{name}-port {port}: 0 to 65535", hint="0 lets the system choose")
        if port and port in taken:
            raise BadInput(f"--{taken[port]}-port and --{name}-port are both {port}", hint="give each its own")
        taken[port] = name


def check_folder(layout: Layout) -> CloudRecord | None:
    """The record of the cloud in DIR, or None when DIR can become one.  Raises the error to show."""
    root = layout.root
    try:
        exists = _exists(root)
        if exists and not root.is_dir():
            raise BadInput(f"{root} is not a folder", hint="name a folder with --data")
        if not exists and not root.parent.is_dir():
            raise _no_parent(root)
        record = layout.read_record() if exists else None
        if record is None and exists and not layout.creating.exists():
            held = sorted(set(os.listdir(root)) - NO_CLOUD_YET)
            if held:
                raise Conflict(f"{root} is not empty and not a cloud (it has {held[0]!r})", hint="name an empty or a new folder")
        _check_file_system(root if exists else root.parent)
        for name in SECRETS if record is not None else ():
            read_secret(layout.secrets / name)
    except FileNotFoundError as error:
        raise Conflict(
            f"{error.filename} is missing", hint="restore it: without it nobody can read what the cloud holds"
        ) from error
    except OSError as error:
        raise named(root, error) from error
    return record


def _exists(path: Path) -> bool:
    """Even as a link to nowhere.  OSError when that cannot be known."""
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def bind(options: Options) -> Sockets:
    """The three public sockets, listening.  Conflict for a port in use."""
    found: list[socket.socket] = []
    try:
        for name, port in options.ports.items():
            found.append(_listening(options.bind, name, port))
    except RingfortError:
        for one in found:
            one.close()
        raise
    return Sockets(*found)


def _listening(host: str, name: str, port: int) -> socket.socket:
    try:
        flags = socket.AI_PASSIVE | socket.AI_NUMERICHOST
        family, kind, _, _, address = socket.getaddrinfo(host or "?", port, type=socket.SOCK_STREAM, flags=flags)[0]
    except (socket.gaierror, UnicodeError) as error:
        raise BadInput(f"--bind {host!r} is not an address", hint="for instance 127.0.0.1, or 0.0.0.0 for all") from error
    try:
        listening = socket.socket(family, kind)
    except OSError as error:
        raise BadInput(f"--bind {host}: {error.strerror}", hint="give an address of this machine") from error
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind(address)
        listening.listen(1024)
    except OSError as error:
        listening.close()
        match error.errno:
            case errno.EADDRINUSE:
                raise Conflict(f"port {port} is in use on {host}", hint=f"choose another with --{name}-port") from error
            case errno.EADDRNOTAVAIL:
                raise BadInput(f"{host} is not an address of this machine", hint="see --bind; 0.0.0.0 is all of them") from error
            case _:
                raise BadInput(f"cannot listen on {host}:{port}: {error.strerror}", hint=f"see --bind and --{name}-port") from error
    return listening


def _no_parent(root: Path) -> BadInput:
    for folder in root.parents:
        if os.path.lexists(folder) and not folder.is_dir():
            return BadInput(f"{folder} is not a folder", hint="name a folder with --data")
    return BadInput(f"the parent folder of {root} does not exist", hint=f"mkdir -p {root.parent}")


def _check_file_system(folder: Path) -> None:
    """Writable and with user xattrs: tried on a file that never gets a name."""
    try:
        descriptor = os.open(folder, os.O_RDWR | os.O_TMPFILE, 0o600)
    except OSError as error:
        if error.errno in (errno.EOPNOTSUPP, errno.EISDIR):
            raise BadInput(
                f"the filesystem of {folder} cannot hold a device (no O_TMPFILE)", hint="use ext4, xfs or btrfs for --data"
            ) from error
        raise named(folder, error) from error
    try:
        os.setxattr(descriptor, "user.ringfort", b"test")
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise named(folder, error) from error
        raise BadInput(
            f"the filesystem of {folder} has no user extended attributes ({error.strerror})",
            hint="use ext4, xfs or btrfs for --data, not NFS or a ramdisk without user_xattr",
        ) from error
    finally:
        os.close(descriptor)


def named(path: Path, error: OSError) -> RingfortError:
    """What the system said of DIR, as a line and a hint."""
    match error.errno:
        case errno.EROFS:
            return BadInput(f"{path} is on a read-only filesystem", hint="name a folder that can be written with --data")
        case errno.EACCES | errno.EPERM:
            return BadInput(f"{path} cannot be written: {error.strerror}", hint="run as its owner or as root")
        case errno.ENOTDIR:
            return BadInput(f"a part of {path} is not a folder", hint="name a folder with --data")
        case errno.ENOSPC | errno.EDQUOT:
            return BadInput(f"there is no room for {path}: {error.strerror}", hint="free some, or name another folder with --data")
        case _:
            return BadInput(f"{path}: {error.strerror}", hint="name another folder with --data")

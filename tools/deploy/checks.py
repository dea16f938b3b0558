"""What is wrong with DIR, before anything is changed: each problem is one clear line and a hint.  Leaves no trace."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from ring.errors import BadInput, Conflict, RingfortError
from tools.deploy.layout import CloudRecord, Layout


def check_folder(layout: Layout) -> CloudRecord | None:
    """The record of the cloud in DIR, or None when DIR can become one.  Raises the error to show."""
    root = layout.root
    try:
        exists = root.exists()
        if exists and not root.is_dir():
            raise BadInput(f"{root} is not a folder", hint="name a folder with --data")
        if not exists and not root.parent.is_dir():
            raise BadInput(f"the parent folder of {root} does not exist", hint=f"mkdir -p {root.parent}")
        record = layout.read_record() if exists else None
        if record is None and exists and not layout.creating.exists():
            held = sorted(os.listdir(root))
            if held:
                raise Conflict(f"{root} is not empty and not a cloud (it has {held[0]!r})", hint="name an empty or a new folder")
        _check_file_system(root if exists else root.parent)
    except OSError as error:
        raise _named(root, error) from error
    return record


def _check_file_system(folder: Path) -> None:
    """Writable and with user xattrs: tried on a file that never gets a name."""
    try:
        descriptor = os.open(folder, os.O_RDWR | os.O_TMPFILE, 0o600)
    except OSError as error:
        if error.errno in (errno.EOPNOTSUPP, errno.EISDIR):
            raise BadInput(
                f"the filesystem of {folder} cannot hold a device (no O_TMPFILE)", hint="use ext4, xfs or btrfs for --data"
            ) from error
        raise _named(folder, error) from error
    try:
        os.setxattr(descriptor, "user.ringfort", b"test")
    except OSError as error:
        raise BadInput(
            f"the filesystem of {folder} has no user extended attributes ({error.strerror})",
            hint="use ext4, xfs or btrfs for --data, not NFS or a ramdisk without user_xattr",
        ) from error
    finally:
        os.close(descriptor)


def _named(path: Path, error: OSError) -> RingfortError:
    match error.errno:
        case errno.EROFS:
            return BadInput(f"{path} is on a read-only filesystem", hint="name a folder that can be written with --data")
        case errno.EACCES | errno.EPERM:
            return BadInput(f"{path} cannot be written: {error.strerror}", hint="run as its owner or as root")
        case errno.ENOTDIR:
            return BadInput(f"a part of {path} is not a folder", hint="name a folder with --data")
        case _:
            return BadInput(f"{path}: {error.strerror}", hint="name another folder with --data")

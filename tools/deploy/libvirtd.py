"""Finds or starts libvirt's system daemon, and says which kind of guest this machine can run.

There may be neither systemd nor dbus: then virtlogd and libvirtd are started as daemons of their own.  Only what was started here
is ever stopped, by its own pid.
"""

from __future__ import annotations

import grp
import os
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from ring.errors import Unavailable

SOCKET = Path("/run/libvirt/libvirt-sock")
WAIT_S = 20.0


def virt_type(cpuinfo: str) -> str:
    """ "kvm" only where the processor says so: a /dev/kvm that exists proves nothing (it may be another hypervisor's stub)."""
    flags = {word for line in cpuinfo.splitlines() if line.startswith("flags") for word in line.partition(":")[2].split()}
    return "kvm" if flags & {"vmx", "svm"} and os.access("/dev/kvm", os.R_OK | os.W_OK) else "qemu"


def this_machines_virt_type() -> str:
    return virt_type(Path("/proc/cpuinfo").read_text())


@dataclass(frozen=True, slots=True)
class Started:
    """The pids of the daemons that ``ensure`` had to start."""

    pids: tuple[int, ...]

    def stop(self) -> None:
        for pid in self.pids:
            try:
                os.kill(pid, signal.SIGTERM)
            except ProcessLookupError:
                continue


def answers() -> bool:
    """Whether qemu:///system can be reached."""
    virsh = shutil.which("virsh")
    if virsh is None:
        return False
    done = subprocess.run([virsh, "-q", "-c", "qemu:///system", "uri"], capture_output=True, timeout=60, check=False)
    return done.returncode == 0


def remove_guest(server_id: str) -> None:
    """Destroy and forget a server's guest, for who cleans up after a failure; nothing when there is none."""
    virsh = shutil.which("virsh")
    for verb in ("destroy", "undefine"):
        if virsh is not None:
            argv = [virsh, "-q", "-c", "qemu:///system", verb, f"ringfort-{server_id}"]
            subprocess.run(argv, capture_output=True, timeout=60, check=False)


def installed() -> bool:
    return all(shutil.which(name, path=_path()) for name in ("libvirtd", "virsh", "qemu-system-x86_64"))


def ensure() -> Started:
    """libvirtd runs when this returns.  Unavailable when it cannot be made to."""
    if not installed():
        raise Unavailable("libvirt or QEMU is not installed: no server can be booted", hint="make setup")
    if answers():
        return Started(())
    _give_kvm_to_its_group()
    pids = []
    for name in ("virtlogd", "libvirtd"):
        program = shutil.which(name, path=_path())
        pid_file = Path(f"/run/{name}.pid")
        if program is None:
            continue
        if (pid := _running(pid_file, name)) is None:
            subprocess.run([program, "-d"], check=True, timeout=30, stdin=subprocess.DEVNULL)
            pid = _wait_pid(pid_file, name)
            pids.append(pid)
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline:
        if answers():
            return Started(tuple(pids))
        time.sleep(0.2)
    Started(tuple(pids)).stop()
    raise Unavailable("libvirtd was started and does not answer", hint="see its log: journalctl, or run libvirtd in a terminal")


def _give_kvm_to_its_group() -> None:
    """Where no udev does it: root:kvm, 0660.

    With the device out of QEMU's reach libvirt finds KVM when it probes as root and misses it when it looks as QEMU's user; so it
    takes what it knows of QEMU for stale and probes anew at every step: minutes for one start."""
    try:
        os.chown("/dev/kvm", 0, grp.getgrnam("kvm").gr_gid)
        os.chmod("/dev/kvm", 0o660)
    except (OSError, KeyError):
        return  # there is no such device or group, or it is not ours to give: libvirt is slow then, not wrong


def _running(pid_file: Path, name: str) -> int | None:
    try:
        pid = int(pid_file.read_text())
        return pid if Path(f"/proc/{pid}/comm").read_text().strip() == name else None
    except (OSError, ValueError):
        return None


def _wait_pid(pid_file: Path, name: str) -> int:
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline:
        if (pid := _running(pid_file, name)) is not None:
            return pid
        time.sleep(0.05)
    raise Unavailable(f"{name} was started and left no pid in {pid_file}")


def _path() -> str:
    return f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"

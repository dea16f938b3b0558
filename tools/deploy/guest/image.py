"""Builds the guest's disk image: MBR, a FAT partition that syslinux boots, an ext4 partition for the guest's data.

No root rights, loop devices or mounts; the only network is apt's, and only when the cache lacks the two packages.  It needs kmod,
syslinux, syslinux-common, mtools, dosfstools, e2fsprogs (packages.txt).
"""

from __future__ import annotations

import gzip
import os
import shutil
import struct
import subprocess
import tempfile
from pathlib import Path

from ring.errors import RingfortError
from tools.deploy.guest import cpio

MIB = 1 << 20
DATA_MIB = 12
PACKAGES = ("linux-image-cloud-amd64", "busybox-static")
MODULES = ("virtio_pci", "virtio_blk", "virtio_scsi", "sd_mod", "virtio_net", "virtio_rng", "ext4", "button", "evdev")
HERE = Path(__file__).parent
SYSLINUX_CONFIG = """\
SERIAL 0 115200
DEFAULT guest
PROMPT 0
LABEL guest
  LINUX vmlinuz
  INITRD initrd.gz
  APPEND console=ttyS0 quiet panic=5
"""


class BuildError(RingfortError):
    """A step of the build failed."""


def package_cache() -> Path:
    """Where the downloaded packages are kept between builds (XDG base directories)."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ringfort" / "packages"


def build(target: Path, cache: Path) -> int:
    """Write the image to ``target`` (replaced atomically); its size in bytes."""
    cache.mkdir(parents=True, exist_ok=True)
    kernel_deb, busybox_deb = _packages(cache)
    with tempfile.TemporaryDirectory(prefix="ringfort-guest-") as folder:
        work = Path(folder)
        _run("dpkg-deb", "-x", str(kernel_deb), str(work / "kernel"))
        _run("dpkg-deb", "-x", str(busybox_deb), str(work / "busybox"))
        release = next((work / "kernel/lib/modules").iterdir()).name
        kernel = work / f"kernel/boot/vmlinuz-{release}"
        initrd = work / "initrd.gz"
        initrd.write_bytes(gzip.compress(_initramfs(work, release), compresslevel=6, mtime=0))
        image = work / "image"
        _assemble(image, work, kernel, initrd)
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(target.name + ".partial")
        shutil.copyfile(image, partial)
        os.replace(partial, target)
        return target.stat().st_size


def _packages(cache: Path) -> tuple[Path, Path]:
    """The two .deb files, downloaded into ``cache`` unless they are there."""
    found = _cached(cache)
    if found is None:
        listing = _run("apt-cache", "depends", PACKAGES[0])
        names = [line.split()[-1] for line in listing.splitlines() if "Depends: linux-image-" in line]
        if not names:
            raise BuildError(f"apt knows no {PACKAGES[0]}", hint="run apt-get update")
        _run("apt-get", "download", "-qq", names[0], PACKAGES[1], cwd=cache)
        found = _cached(cache)
    if found is None:
        raise BuildError("apt-get download left no packages behind")
    return found


def _cached(cache: Path) -> tuple[Path, Path] | None:
    kernels = sorted(cache.glob("linux-image-*cloud-amd64_*.deb"))
    busyboxes = sorted(cache.glob("busybox-static_*.deb"))
    return (kernels[-1], busyboxes[-1]) if kernels and busyboxes else None


def _initramfs(work: Path, release: str) -> bytes:
    busybox = work / "busybox/bin/busybox"
    entries = [cpio.folder(name) for name in ("bin", "data", "dev", "etc", "etc/acpi", "etc/acpi/PWRF", "modules")]
    entries += [cpio.folder(name) for name in ("proc", "sys", "tmp")]
    entries.append(cpio.file("bin/busybox", busybox.read_bytes(), 0o755))
    entries += [cpio.link(f"bin/{applet}", "busybox") for applet in _run(str(busybox), "--list").split() if applet != "busybox"]
    order = _modules(work, release)
    entries += [cpio.file(f"modules/{path.name}", path.read_bytes()) for path in order]
    entries.append(cpio.file("modules/order", "".join(f"{path.name}\n" for path in order).encode()))
    entries.append(cpio.file("init", (HERE / "init").read_bytes(), 0o755))
    entries.append(cpio.file("etc/acpi/PWRF/00000080", (HERE / "power-button").read_bytes(), 0o755))
    return cpio.archive(entries)


def _modules(work: Path, release: str) -> list[Path]:
    """Module files in the order in which they load, dependencies first."""
    tree = str(work / "kernel")
    _run("depmod", "-b", tree, release)
    order: dict[Path, None] = {}
    for module in MODULES:
        for line in _run("modprobe", "-S", release, "-d", tree, "--show-depends", module).splitlines():
            words = line.split()
            if words[:1] == ["insmod"]:
                order[Path(words[1])] = None
    return list(order)


def _assemble(image: Path, work: Path, kernel: Path, initrd: Path) -> None:
    boot_mib = (kernel.stat().st_size + initrd.stat().st_size) // MIB + 3
    config = work / "syslinux.cfg"
    config.write_text(SYSLINUX_CONFIG)
    fat = work / "fat"
    _sized(fat, boot_mib)
    _run("mkfs.fat", "-F", "16", "-n", "RFBOOT", "-i", "52464f52", "--invariant", "-h", str(MIB // 512), str(fat))
    _run("mcopy", "-i", str(fat), str(kernel), "::vmlinuz")
    _run("mcopy", "-i", str(fat), str(initrd), str(config), "::")
    _run("syslinux", "--install", str(fat))
    ext = work / "ext"
    _sized(ext, DATA_MIB)
    _run("mke2fs", "-q", "-t", "ext4", "-L", "rfdata", "-m", "0", "-J", "size=1", "-N", "128", str(ext))
    _sized(image, 1 + boot_mib + DATA_MIB)
    with image.open("r+b") as out:
        out.write(_mbr(boot_mib))
        for start_mib, part in ((1, fat), (1 + boot_mib, ext)):
            out.seek(start_mib * MIB)
            out.write(part.read_bytes())


def _mbr(boot_mib: int) -> bytes:
    """Boot code, then the partition table: FAT16 (active), Linux.  Addresses in sectors of 512 bytes; no CHS."""
    code = Path("/usr/lib/syslinux/mbr/mbr.bin").read_bytes()[:440]
    sectors = MIB // 512
    beyond = b"\xfe\xff\xff"
    first = struct.pack("<B3sB3sII", 0x80, beyond, 0x06, beyond, sectors, boot_mib * sectors)
    second = struct.pack("<B3sB3sII", 0x00, beyond, 0x83, beyond, (1 + boot_mib) * sectors, DATA_MIB * sectors)
    return code.ljust(440, b"\0") + b"RFRT\0\0" + first + second + bytes(32) + b"\x55\xaa"


def _sized(path: Path, mib: int) -> None:
    with path.open("wb") as file:
        file.truncate(mib * MIB)


def _run(*argv: str, cwd: Path | None = None) -> str:
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    environment = {**os.environ, "PATH": path, "LC_ALL": "C", "MTOOLS_SKIP_CHECK": "1"}
    program = shutil.which(argv[0], path=path)
    if program is None:
        raise BuildError(f"{argv[0]} is not installed", hint="make setup installs what the guest image needs")
    done = subprocess.run([program, *argv[1:]], cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BuildError(f"{' '.join(argv)} failed ({done.returncode}): {done.stderr.strip()[-400:]}")
    return done.stdout

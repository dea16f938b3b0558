"""A tiny bootable guest, made on the spot from two Debian packages: image.py builds it, init is its first program.

The guest is amd64, BIOS, virtio only; its console is ttyS0.  What it says there, a line each:

    RINGFORT-GUEST boot=N kernel=K root=DEV
    RINGFORT-GUEST found lines=N sha256=HEX        the journal on its disk as the last boot left it ("none" on the first)
    RINGFORT-GUEST wrote lines=N sha256=HEX        after a line and 64 KiB of noise were added and synced
    RINGFORT-GUEST READY boot=N                    the marker to wait for; a root shell follows
    RINGFORT-GUEST poweroff                        on the power button
"""

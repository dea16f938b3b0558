"""An operator at a desk: command lines on a folder, with a clock that is set by hand, disks that may be full, and answers typed."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from ring.builder.builder import Builder
from ring.builder.builderfile import decode_builder
from ring.placement import Ring
from ring.ringfile import decode
from ring.world.interface import Disk, World
from ring.world.real import make_world
from tools.cli.main import run
from tools.cli.ring.file import NO_SECRETS

NOON = 1_800_000_000.0


@dataclass
class HandClock:
    seconds: float = NOON

    def now(self) -> float:
        return self.seconds


class FullDisk:
    """Has room for ``room`` more files."""

    def __init__(self, disk: Disk, room: int) -> None:
        self._disk = disk
        self.room = room

    async def replace_file(self, path: str, data: bytes, *, mode: int = 0o644) -> None:
        if not self.room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
        self.room -= 1
        await self._disk.replace_file(path, data, mode=mode)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._disk, name)


@dataclass(frozen=True)
class Said:
    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


class Desk:
    def __init__(self, folder: Path, name: str = "object.builder") -> None:
        self.folder, self.name = folder, name
        self.path = folder / name
        self.clock = HandClock()

    def world(self, *, room: int | None = None) -> World:
        real = make_world()
        world = replace(real, clock=self.clock)
        if room is None:
            return world

        def full(root: str) -> Disk:
            disk: Any = FullDisk(real.open_disk(root), room)
            return disk  # type: ignore[no-any-return]  # what it has not it hands on

        return replace(world, open_disk=full)

    def __call__(self, *arguments: str | float, typed: str = "", room: int | None = None) -> Said:
        """One command line; FILE stands in front."""
        return self.run(["ring", str(self.path), *map(str, arguments)], typed=typed, room=room)

    def run(self, arguments: Sequence[str], *, typed: str = "", room: int | None = None) -> Said:
        with CliRunner().isolation(input=typed) as (out, err, _):
            status = run(arguments, self.world(room=room))
        return Said(status, out.getvalue().decode(), err.getvalue().decode())

    def done(self, *arguments: str | float) -> str:
        """One that must exit 0; what it prints."""
        said = self(*arguments)
        assert said.status == 0, said
        return said.out

    def placed(self, *arguments: str | float) -> str:
        """A rebalance that must be written, with or without a warning."""
        said = self("rebalance", *arguments)
        assert said.out.startswith("Reassigned"), said
        return said.out

    def hours_pass(self, hours: float) -> None:
        self.clock.seconds += 3600 * hours

    @property
    def builder(self) -> Builder:
        return decode_builder(self.path.read_bytes())

    @property
    def ring(self) -> Ring:
        return decode(self.path.with_suffix(".ring").read_bytes(), NO_SECRETS)

    def files(self) -> dict[str, bytes]:
        """Everything in the folder, by path."""
        return {str(path.relative_to(self.folder)): path.read_bytes() for path in sorted(self.folder.rglob("*")) if path.is_file()}

    @classmethod
    def with_zones(cls, folder: Path, zones: int = 3, *, part_power: int = 6, servers: int = 1, weight: float = 100) -> Desk:
        """d0 = r1z1-10.0.1.1:6200/sdb, one device per server."""
        desk = cls(folder)
        desk.done("create", part_power, 3, 1)
        for zone in range(1, zones + 1):
            for server in range(1, servers + 1):
                desk.done("add", f"r1z{zone}-10.0.{zone}.{server}:6200/sdb", weight)
        return desk

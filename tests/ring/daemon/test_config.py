"""Settings that are taken, and what is said of those that are not."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Literal

import pytest

from ring.daemon.config import ConfigError, parse_config
from ring.errors import BadInput


class Fsync(Enum):
    ALWAYS = "always"
    NEVER = "never"


@dataclass(frozen=True)
class Disk:
    path: str
    weight: float = 1.0


@dataclass(frozen=True)
class Settings:
    name: str
    workers: int = 1
    ratio: float = 0.5
    debug: bool = False
    port: int | None = None
    fsync: Fsync = Fsync.ALWAYS
    level: Literal["info", "debug"] = "info"
    hosts: tuple[str, ...] = ()
    disks: tuple[Disk, ...] = ()
    first: Disk = field(default_factory=lambda: Disk("/"))
    zones: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.workers < 1:
            raise BadInput("workers must be at least 1")


def test_everything() -> None:
    text = """
    name = "a"
    workers = 2
    ratio = 1
    debug = true
    port = 80
    fsync = "never"
    level = "debug"
    hosts = ["x", "y"]
    first.path = "/b"
    zones = { z1 = 1, z2 = 2 }
    [[disks]]
    path = "/c"
    [[disks]]
    path = "/d"
    weight = 2.5
    """
    disks = (Disk("/c"), Disk("/d", 2.5))
    assert parse_config(text, Settings) == Settings(
        "a", 2, 1.0, True, 80, Fsync.NEVER, "debug", ("x", "y"), disks, Disk("/b"), {"z1": 1, "z2": 2}
    )
    assert parse_config('name = "a"', Settings) == Settings("a")


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("", "c: 'name' is missing", ""),
        ("name = ", "c: not TOML", ""),
        ("nam = 1", "c: unknown key 'nam'", "did you mean 'name'?"),
        ("name = 1", "c: 'name' must be a text, not 1", ""),
        ('name = "a"\nworkers = "2"', "c: 'workers' must be a whole number, not '2'", ""),
        ('name = "a"\nworkers = true', "c: 'workers' must be a whole number, not True", ""),
        ('name = "a"\nworkers = 1.5', "c: 'workers' must be a whole number, not 1.5", ""),
        ('name = "a"\ndebug = 1', "c: 'debug' must be true or false, not 1", ""),
        ('name = "a"\nport = "x"', "c: 'port' must be a whole number, not 'x'", ""),
        ('name = "a"\nfsync = "x"', "c: 'fsync' must be one of 'always', 'never', not 'x'", ""),
        ('name = "a"\nlevel = "x"', "c: 'level' must be one of 'info', 'debug', not 'x'", ""),
        ('name = "a"\nhosts = "x"', "c: 'hosts' must be a list, not 'x'", ""),
        ('name = "a"\nhosts = ["x", 1]', "c: 'hosts[1]' must be a text, not 1", ""),
        ('name = "a"\nfirst = 1', "c: 'first' must be a table, not 1", ""),
        ('name = "a"\n[[disks]]\npath = "x"\nwieght = 1', "c: unknown key 'disks[0].wieght'", "did you mean 'weight'?"),
        ('name = "a"\n[[disks]]', "c: 'disks[0].path' is missing", ""),
        ('name = "a"\nworkers = 0', "c: workers must be at least 1", ""),
        ('name = "a"\nzones = { z1 = "x" }', "c: 'zones.z1' must be a whole number, not 'x'", ""),
    ],
)
def test_errors(text: str, message: str, hint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config(text, Settings, source="c")
    assert caught.value.message.startswith(message)
    assert caught.value.hint == hint


def test_an_unknown_key_far_from_all_others_lists_them() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config("zzzzzz = 1", Disk)
    assert caught.value.hint == "known keys are path, weight"

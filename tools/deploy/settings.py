"""``DIR/ringfort.toml``: what an operator may set of a cloud on one machine.  Optional; every key has a default; read at starts.

[objects]
object_bytes_max = 5368709120        # of one PUT; larger bodies go in parts
memory_bytes = 268435456             # of body buffers, for each worker; beyond it 503
s3_hosts = ["s3.example.org"]        # domains below which a Host names a bucket
s3_region = "us-east-1"

[background]
audit_bytes_per_s = 20971520.0       # each device
repair_items_per_s = 2000.0          # each device and worker
refill_items_per_s = 20000.0         # ... of a device that is being refilled; to the others it is clients' work
sweep_items_per_s = 50.0
reclaim_age_s = 604800.0             # tombstones are kept that long, and then until every device is known not to need them
reap_delay_s = 3600.0                # from the deletion of an account until what is in it goes; 0: at once
shard_rows = 10000000                # a container with more rows is cut into shards
shard_rows_per_s = 20000.0           # forwarded to shards, each device
yield_slowdown = 0.5                 # background work goes slower when requests take longer than at best by more than this part
yield_floor = 0.25                   # ... but never slower than this part of its rates; 1: it does not yield
yield_floor_urgent = 0.5             # ... nor do replicators while something has only one copy

[devices]
reserve_bytes = 1073741824           # of each device: with less free it takes no new data; deletes and compaction go on
reserve_share = 0.01                 # ... but never more of a device than this part

[identity]
token_ttl_s = 3600.0

[log]
level = "INFO"                       # DEBUG also logs every request
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from ring.daemon.config import ConfigError, parse_config
from storage.object.health import RESERVE_BYTES, RESERVE_SHARE, Reserve
from storage.sync.proposal import RECLAIM_AGE_S

FILE = "ringfort.toml"
RECLAIM_AGE_LEAST_S = 300.0
SHARD_ROWS_LEAST = 20


@dataclass(frozen=True, slots=True)
class Objects:
    object_bytes_max: int = 5 << 30
    memory_bytes: int = 256 << 20
    s3_hosts: tuple[str, ...] = ()
    s3_region: str = "us-east-1"


@dataclass(frozen=True, slots=True)
class Background:
    audit_bytes_per_s: float = float(20 << 20)
    repair_items_per_s: float = 2000.0
    refill_items_per_s: float = 20_000.0
    sweep_items_per_s: float = 50.0
    reclaim_age_s: float = RECLAIM_AGE_S
    reap_delay_s: float = 3600.0
    shard_rows: int = 10_000_000
    shard_rows_per_s: float = 20_000.0
    yield_slowdown: float = 0.5
    yield_floor: float = 0.25
    yield_floor_urgent: float = 0.5


@dataclass(frozen=True, slots=True)
class DeviceSettings:
    reserve_bytes: int = RESERVE_BYTES
    reserve_share: float = RESERVE_SHARE

    @property
    def reserve(self) -> Reserve:
        return Reserve(self.reserve_bytes, self.reserve_share)


@dataclass(frozen=True, slots=True)
class Identity:
    token_ttl_s: float = 3600.0


@dataclass(frozen=True, slots=True)
class LogSettings:
    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"


@dataclass(frozen=True, slots=True)
class Settings:
    objects: Objects = field(default_factory=Objects)
    background: Background = field(default_factory=Background)
    devices: DeviceSettings = field(default_factory=DeviceSettings)
    identity: Identity = field(default_factory=Identity)
    log: LogSettings = field(default_factory=LogSettings)


def load_settings(root: Path) -> Settings:
    """The defaults where there is no file.  ConfigError names the key; a number that cannot be is one too."""
    path = root / FILE
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return Settings()
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8") from error
    settings = parse_config(text, Settings, source=str(path))
    for name, value in (
        ("objects.object_bytes_max", settings.objects.object_bytes_max),
        ("objects.memory_bytes", settings.objects.memory_bytes),
        ("background.audit_bytes_per_s", settings.background.audit_bytes_per_s),
        ("background.repair_items_per_s", settings.background.repair_items_per_s),
        ("background.refill_items_per_s", settings.background.refill_items_per_s),
        ("background.sweep_items_per_s", settings.background.sweep_items_per_s),
        ("background.shard_rows_per_s", settings.background.shard_rows_per_s),
        ("devices.reserve_bytes", settings.devices.reserve_bytes),
        ("devices.reserve_share", settings.devices.reserve_share),
        ("background.yield_slowdown", settings.background.yield_slowdown),
        ("identity.token_ttl_s", settings.identity.token_ttl_s),
    ):
        if not value > 0:
            raise ConfigError(f"{path}: {name} is {value}", hint="it must be above 0")
    for name, share in (
        ("background.yield_floor", settings.background.yield_floor),
        ("background.yield_floor_urgent", settings.background.yield_floor_urgent),
    ):
        if not 0 < share <= 1:
            raise ConfigError(f"{path}: {name} is {share}", hint="it is a part of the rates: above 0, at most 1")
    if not settings.background.reap_delay_s >= 0:
        raise ConfigError(f"{path}: background.reap_delay_s is {settings.background.reap_delay_s}", hint="it must be 0 or more")
    if not settings.background.reclaim_age_s >= RECLAIM_AGE_LEAST_S:
        raise ConfigError(
            f"{path}: background.reclaim_age_s is {settings.background.reclaim_age_s}",
            hint=f"it must be {RECLAIM_AGE_LEAST_S:.0f} or more: requests may be under way that long",
        )
    if settings.background.shard_rows < SHARD_ROWS_LEAST:
        raise ConfigError(
            f"{path}: background.shard_rows is {settings.background.shard_rows}",
            hint=f"it must be {SHARD_ROWS_LEAST} or more: a container in many tiny shards is slow to list and slow to join again",
        )
    if settings.devices.reserve_share > 0.5:
        raise ConfigError(f"{path}: devices.reserve_share is {settings.devices.reserve_share}", hint="it must be 0.5 or less")
    return settings

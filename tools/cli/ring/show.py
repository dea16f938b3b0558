"""What ``ringfort ring FILE`` prints: the table of swift-ring-builder(1), and the same as JSON.

Reads a builder and its ring file, changes nothing.  ``devices_table`` and ``balances`` also serve the verb ``search``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import timedelta

from ring.builder.builder import BALANCE_MAX, Builder
from ring.device import Device
from ring.errors import BadInput, FormatError
from tools.cli.ring.file import NO_SECRETS, RingFile

EMPTY = "There are no devices in this ring, or all devices have been deleted"
UP_TO_DATE, OBSOLETE, NOT_FOUND, INVALID = "up-to-date", "obsolete", "not found", "invalid"
_WORDS = {
    UP_TO_DATE: "Ring file {path} is up-to-date",
    OBSOLETE: "Ring file {path} is obsolete",
    NOT_FOUND: "Ring file {path} not found, probably it hasn't been written yet",
    INVALID: "Ring file {path} is invalid: {why}",
}
ID_BYTES = 2  # of a device id in the table


def as_dict(file: RingFile, builder: Builder) -> dict[str, object]:
    """``devices`` are in the order of their ids; ``balance`` and ``dispersion`` are percent, ``overload`` is a fraction;
    ``ring.state`` is one of up-to-date, obsolete, not found, invalid."""
    counts, balance = builder.counts(), balances(builder)
    state, why = ring_state(file, builder)
    return {
        "id": builder.id,
        "version": builder.version,
        "part_power": builder.part_power,
        "next_part_power": builder.next_part_power,
        "partitions": builder.partition_count,
        "replicas": builder.replicas,
        "min_part_hours": builder.min_part_hours,
        "min_part_seconds_left": seconds_left(builder, file.now()),
        "overload": builder.overload,
        "balance": round(worst(balance), 2),
        "dispersion": round(builder.dispersion(), 2),
        "regions": len(_regions(builder)),
        "zones": len(_zones(builder)),
        "ring": {"path": file.ring_path, "state": state, **({"why": why} if why else {})},
        "devices": [device_dict(builder, device, counts, balance) for device in builder.present],
    }


def device_dict(builder: Builder, device: Device, counts: Mapping[int, int], balance: Mapping[int, float]) -> dict[str, object]:
    return {
        **asdict(device),
        "partitions": counts[device.id],
        "balance": round(balance[device.id], 2),
        "removed": device.id in builder.removed,
    }


def as_text(file: RingFile, builder: Builder) -> str:
    balance = balances(builder)
    state, why = ring_state(file, builder)
    lines = [
        f"{file.path}, build version {builder.version}, id {builder.id or '(not assigned)'}",
        f"{builder.partition_count} partitions, {builder.replicas:.6f} replicas, {len(_regions(builder))} regions, "
        f"{len(_zones(builder))} zones, {len(builder.present)} devices, {ID_BYTES}-byte IDs, {worst(balance):.2f} balance, "
        f"{builder.dispersion():.2f} dispersion",
        f"The minimum number of hours before a partition can be reassigned is {builder.min_part_hours} "
        f"({timedelta(seconds=seconds_left(builder, file.now()))} remaining)",
        f"The overload factor is {100 * builder.overload:.2f}% ({builder.overload:.6f})",
        _WORDS[state].format(path=file.ring_path, why=why),
        *devices_table(builder, builder.present, balance),
    ]
    if not builder.present:
        lines.append(EMPTY)
    return "\n".join(lines + _power(builder, state))


def devices_table(builder: Builder, devices: Iterable[Device], balance: Mapping[int, float]) -> list[str]:
    """The columns of swift-ring-builder, by region, zone, address and name."""
    counts = builder.counts()
    rows = []
    for device in sorted(devices, key=lambda d: (d.region, d.zone, d.ip, d.name)):
        rows.append(
            (
                f"{device.id}",
                f"{device.region}",
                f"{device.zone}",
                *_address(device.ip, device.port),
                *_address(device.replication_ip, device.replication_port),
                device.name,
                f"{device.weight:.2f}",
                f"{counts[device.id]}",
                f"{balance[device.id]:.2f}",
                "DEL" if device.id in builder.removed else "",
                device.meta,
            )
        )
    head = (
        "id",
        "region",
        "zone",
        "ip address",
        "port",
        "replication ip",
        "port",
        "name",
        "weight",
        "partitions",
        "balance",
        "flags",
    )
    least = (5, 6, 4, 10, 4, 14, 4, 5, 6, 10, 7, 5)
    widths = [max([low, *(len(row[column]) for row in rows)]) for column, low in enumerate(least)]
    return [_line("Devices:", (*head, "meta"), widths), *(_line(" " * 8, row, widths) for row in rows)]


def _line(start: str, cells: Sequence[str], widths: Sequence[int]) -> str:
    """Right of its column each cell, but a port, which stands left behind its colon."""
    name, ip, port, replication_ip, replication_port = 8, 3, 4, 5, 6
    padded = [cell.rjust(width) for cell, width in zip(cells, widths, strict=False)]
    address = f"{padded[ip]}:{cells[port].ljust(widths[port])}"
    replication = f"{padded[replication_ip]}:{cells[replication_port].ljust(widths[replication_port])}"
    return start + " ".join([*padded[:ip], address, replication, *padded[name - 1 :], cells[-1]]).rstrip()


def _address(ip: str, port: int) -> tuple[str, str]:
    return (f"[{ip}]" if ":" in ip else ip), str(port)


def _power(builder: Builder, state: str) -> list[str]:
    if builder.next_part_power is None:
        return []
    if builder.next_part_power != builder.part_power:
        return [
            "",
            f"Preparing increase of partition power ({builder.part_power} -> {builder.next_part_power})",
            "Next: increase_partition_power, or cancel_increase_partition_power",
        ]
    lines = ["", f"Increased partition power ({builder.part_power - 1} -> {builder.part_power})"]
    if state != UP_TO_DATE:
        lines.append("First: write_ring and publish")
    return [*lines, "Next: finish_increase_partition_power"]


# ---- figures


def balances(builder: Builder) -> dict[int, float]:
    """Percent that each device is off its share, as Builder.device_balance; -100 for all that should hold something before the
    first rebalance.  Where the devices with weight are fewer than the replicas, and no shares fit, shares are by weight alone."""
    if not builder.table:
        return {device.id: -100.0 if device.weight else 0.0 for device in builder.present}
    try:
        return builder.device_balance()
    except BadInput:
        weight = sum(device.weight for device in builder.present)
        result = {}
        for device_id, count in builder.counts().items():
            share = sum(builder.rows) * builder.device(device_id).weight / weight if weight else 0.0
            result[device_id] = 100 * count / share - 100 if share else (BALANCE_MAX if count else 0.0)
        return result


def worst(balance: Mapping[int, float]) -> float:
    return max(map(abs, balance.values()), default=0.0)


def seconds_left(builder: Builder, now: float) -> int:
    """Until every partition may move again."""
    return int(builder.hours_left(now) * 3600)


def ring_state(file: RingFile, builder: Builder) -> tuple[str, str]:
    """Whether the ring file says what the builder does, whatever their versions; and why it is invalid if it is."""
    try:
        there = file.load_ring()
    except FormatError as error:
        return INVALID, error.message.removeprefix(f"{file.ring_path}: ")
    if there is None:
        return NOT_FOUND, ""
    if not builder.table:
        return OBSOLETE, ""
    new = builder.ring(NO_SECRETS)
    same = (
        (there.part_power, there.next_part_power) == (new.part_power, new.next_part_power)
        and tuple(there.devices) == tuple(new.devices)
        and len(there.table) == len(new.table)
        and all(bytes(a) == bytes(b) for a, b in zip(there.table, new.table, strict=True))
    )
    return (UP_TO_DATE if same else OBSOLETE), ""


def _regions(builder: Builder) -> set[int]:
    return {device.region for device in builder.present}


def _zones(builder: Builder) -> set[tuple[int, int]]:
    return {(device.region, device.zone) for device in builder.present}

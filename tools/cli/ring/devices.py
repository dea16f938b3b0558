"""Verbs that change devices: add, set_weight, set_info, set_region, set_zone, remove.

Each parses, finds, asks, calls the Builder and prints what swift-ring-builder(1) prints; the file is written once, when all of it
went well.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import click

from ring.builder.builder import Builder
from ring.device import Device
from ring.errors import BadInput, Conflict
from tools.cli.ring.group import CHANGED, UNCHANGED, RingFile, verb
from tools.cli.ring.search import SEARCH_HELP, choose, find, host, ip, named, pairs, search_options, searches, whole, yes_option

_ADDRESS = r"(?:\[[^\]]*\]|[^\[\]/:R]*)"
_ADD = re.compile(
    rf"(?:r(?P<region>\d{{1,9}}))?z(?P<zone>\d{{1,9}})-(?P<ip>{_ADDRESS}):(?P<port>\d{{1,5}})"
    rf"(?:R(?P<replication_ip>{_ADDRESS}):(?P<replication_port>\d{{1,5}}))?/(?P<name>[^_]*)(?:_(?P<meta>.*))?",
    re.ASCII | re.DOTALL,
)
_CHANGE = re.compile(
    r"(?P<ip>\d[\d.]*|\[[^\]]*\])?(?::(?P<port>\d{1,5}))?"
    r"(?:R(?P<replication_ip>\d[\d.]*|\[[^\]]*\])?(?::(?P<replication_port>\d{1,5}))?)?(?:/(?P<name>[^_]*))?(?:_(?P<meta>.*))?",
    re.ASCII | re.DOTALL,
)
_EXAMPLE = "r1z1-10.0.0.4:6200/sdb1_META, or r1z1-10.0.0.4:6200R10.1.0.4:6201/sdb1; IPv6 in brackets"


@verb()
@click.argument("pairs_", metavar="[DEVICE WEIGHT]...", nargs=-1)
@click.option("-r", "--region", type=whole, metavar="N", help="Region.")
@click.option("-z", "--zone", type=whole, metavar="N", help="Zone.")
@click.option("-i", "--ip", "address", metavar="HOST", help="IP address or name of the server.")
@click.option("-p", "--port", type=whole, metavar="N", help="Port.")
@click.option("-j", "--replication-ip", metavar="HOST", help="Replication address; --ip unless given.")
@click.option("-q", "--replication-port", type=whole, metavar="N", help="Replication port; --port unless given.")
@click.option("-d", "--device", "name", metavar="NAME", help="Device name: sdb1.")
@click.option("-w", "--weight", metavar="WEIGHT", help="Weight: what it should hold, beside others.")
@click.option("-m", "--meta", metavar="TEXT", default="", help="Whatever you like.")
@click.option("-y", "--yes", is_flag=True, help="Taken as the other verbs take it; there is nothing to ask.")
@click.pass_obj
def add(file: RingFile, /, pairs_: tuple[str, ...], yes: bool, **options: Any) -> int:
    """Add devices.

    \b
    DEVICE is [r<region>]z<zone>-<ip>:<port>[R<r_ip>:<r_port>]/<name>[_<meta>]:
      add r1z1-10.0.0.4:6200/sdb1 100 r1z2-10.0.0.5:6200/sdb1_"rack 7" 100
      add r1z1-10.0.0.4:6200R10.1.0.4:6201/sdc1 100
      add z1-[fd00::4]:6200/sdb1 100
      add --region 1 --zone 1 --ip 10.0.0.4 --port 6200 --device sdb1 --weight 100

    They hold nothing before the next rebalance.
    """
    given = [name for name, value in options.items() if value not in (None, "")]
    if bool(given) == bool(pairs_):
        raise BadInput("give DEVICE WEIGHT, or options, and not both", hint=_EXAMPLE)
    if len(pairs_) % 2:
        raise BadInput("arguments come in pairs: DEVICE WEIGHT", hint=_EXAMPLE)
    builder = file.load()
    _refuse_increase(builder)
    wanted = [_from_text(*pair) for pair in zip(pairs_[::2], pairs_[1::2], strict=True)] if pairs_ else [_from_options(options)]
    added = [builder.add_device(**one) for one in wanted]
    file.save(builder)
    for device in added:
        click.echo(f"Device {named(device)} with {device.weight} weight got id {device.id}")
    return CHANGED


def _from_text(text: str, weight: str) -> dict[str, Any]:
    match = _ADD.fullmatch(text)
    if match is None:
        raise BadInput(f"not a device: {text}", hint=_EXAMPLE)
    if match["region"] is None:
        click.echo(f"WARNING: No region specified for {text}. Defaulting to region 1.", err=True)
    there = {key: value for key, value in match.groupdict().items() if value is not None}
    result = {
        "region": int(there.get("region", 1)),
        "zone": int(there["zone"]),
        "ip": ip(there["ip"]),
        "port": int(there["port"]),
        "name": _text(there["name"]),
        "weight": _weight(weight),
        "meta": _text(there.get("meta", "")),
    }
    if "replication_ip" in there:
        result |= {"replication_ip": ip(there["replication_ip"]), "replication_port": int(there["replication_port"])}
    return result


def _from_options(options: dict[str, Any]) -> dict[str, Any]:
    missing = [name for name in ("region", "zone", "address", "port", "name", "weight") if options[name] in (None, "")]
    if missing:
        names = {"address": "ip", "name": "device"}
        raise BadInput("missing: " + ", ".join("--" + names.get(name, name) for name in missing))
    result = {key: options[key] for key in ("region", "zone", "port")}
    result |= {
        "name": _text(options["name"]),
        "ip": host(options["address"]),
        "weight": _weight(options["weight"]),
        "meta": _text(options["meta"]),
    }
    if options["replication_ip"]:
        result["replication_ip"] = host(options["replication_ip"])
    if options["replication_port"] is not None:
        result["replication_port"] = options["replication_port"]
    return result


@verb("set_weight")
@click.argument("pairs_", metavar="SEARCH_VALUE WEIGHT...", nargs=-1)
@search_options
@yes_option
@click.pass_obj
def set_weight(file: RingFile, /, pairs_: tuple[str, ...], yes: bool, **options: Any) -> int:
    """Change the weight of devices; 0 drains them.

    \b
      set_weight d3 200
      set_weight z1-10.0.0.4 0 --yes
      set_weight --region 1 --device sdb1 150

    Replicas move at the next rebalances.
    """

    def change(builder: Builder, device: Device, value: float) -> tuple[bool, str]:
        return builder.set_weight(device.id, value), f"{named(device)} weight set to {value}"

    return _set(file, pairs(pairs_, options, "WEIGHT"), "update the weight for", _weight, change, yes=yes)


@verb("set_region")
@click.argument("pairs_", metavar="SEARCH_VALUE REGION...", nargs=-1)
@search_options
@yes_option
@click.pass_obj
def set_region(file: RingFile, /, pairs_: tuple[str, ...], yes: bool, **options: Any) -> int:
    """Put devices into another region.

    \b
      set_region d3 2
      set_region z4 2 --yes

    Replicas move at the next rebalances.
    """

    def change(builder: Builder, device: Device, value: int) -> tuple[bool, str]:
        changed = builder.set_region(device.id, value)
        return changed, f"{named(builder.device(device.id))} region set to {value}"

    return _set(file, pairs(pairs_, options, "REGION"), "update the region for", _whole("region"), change, yes=yes)


@verb("set_zone")
@click.argument("pairs_", metavar="SEARCH_VALUE ZONE...", nargs=-1)
@search_options
@yes_option
@click.pass_obj
def set_zone(file: RingFile, /, pairs_: tuple[str, ...], yes: bool, **options: Any) -> int:
    """Put devices into another zone.

    \b
      set_zone d3 2
      set_zone 10.0.0.4 2 --yes

    Replicas move at the next rebalances.
    """

    def change(builder: Builder, device: Device, value: int) -> tuple[bool, str]:
        changed = builder.set_zone(device.id, value)
        return changed, f"{named(builder.device(device.id))} zone set to {value}"

    return _set(file, pairs(pairs_, options, "ZONE"), "update the zone for", _whole("zone"), change, yes=yes)


@verb("set_info")
@click.argument("pairs_", metavar="SEARCH_VALUE CHANGE...", nargs=-1)
@search_options
@click.option("-I", "--change-ip", metavar="HOST", help="New address.")
@click.option("-P", "--change-port", type=whole, metavar="N", help="New port.")
@click.option("-J", "--change-replication-ip", metavar="HOST", help="New replication address.")
@click.option("-Q", "--change-replication-port", type=whole, metavar="N", help="New replication port.")
@click.option("-D", "--change-device", metavar="NAME", help="New device name.")
@click.option("-M", "--change-meta", metavar="TEXT", help="New meta.")
@yes_option
@click.pass_obj
def set_info(
    file: RingFile,
    /,
    pairs_: tuple[str, ...],
    yes: bool,
    change_ip: str | None,
    change_port: int | None,
    change_replication_ip: str | None,
    change_replication_port: int | None,
    change_device: str | None,
    change_meta: str | None,
    **options: Any,
) -> int:
    """Change the address, name or meta of devices.

    \b
    CHANGE is <ip>:<port>R<r_ip>:<r_port>/<name>_<meta>, each part optional:
      set_info d3 10.0.0.9:6200
      set_info d3 /sdc1 d4 _"rack 7"
      set_info --ip 10.0.0.4 --change-ip 10.0.0.9 --yes

    No replica moves: write_ring afterwards makes the ring with the new data.  A replication address that is the same as the address
    goes with it.
    """
    by_option = {
        "ip": host(change_ip) if change_ip else None,
        "port": change_port,
        "replication_ip": host(change_replication_ip) if change_replication_ip else None,
        "replication_port": change_replication_port,
        "name": None if change_device is None else _text(change_device),
        "meta": None if change_meta is None else _text(change_meta),
    }
    by_option = {key: value for key, value in by_option.items() if value is not None}
    if by_option and pairs_:
        raise BadInput("give SEARCH_VALUE CHANGE, or options, and not both")
    if by_option:
        asked = [(search, "") for search in searches((), options)]
    else:
        asked = pairs(pairs_, options, "CHANGE")

    def change(builder: Builder, device: Device, value: dict[str, Any]) -> tuple[bool, str]:
        changed = builder.set_info(device.id, **value)
        return changed, f"Device {named(device)} is now {named(builder.device(device.id))}"

    def parse(text: str) -> dict[str, Any]:
        return by_option or _change(text)

    return _set(file, asked, "update the info for", parse, change, yes=yes, also_removed=True)


def _change(text: str) -> dict[str, Any]:
    match = _CHANGE.fullmatch(text)
    given = {} if match is None else {key: value for key, value in match.groupdict().items() if value is not None}
    if not given:
        raise BadInput(f"not a change: {text or 'nothing'}", hint="10.0.0.9:6200R10.1.0.9:6201/sdc1_META, each part optional")
    return {key: _parsed(key, value) for key, value in given.items()}


def _parsed(key: str, value: str) -> int | str:
    if key in ("port", "replication_port"):
        return int(value)
    if key in ("ip", "replication_ip"):
        return ip(value)
    return _text(value)


@verb()
@click.argument("values", metavar="SEARCH_VALUE...", nargs=-1)
@search_options
@yes_option
@click.pass_obj
def remove(file: RingFile, /, values: tuple[str, ...], yes: bool, **options: Any) -> int:
    """Take devices out at the next rebalance, whatever min_part_hours say.

    For devices that failed.  From one that works, set_weight 0 moves everything away in good order; remove it when it is empty.

    \b
      remove d3
      remove 10.0.0.4 --yes
      remove --region 1 --device sdb1
    """
    asked = searches(values, options)
    builder = file.load()
    _refuse_increase(builder)
    found = list({device.id: device for search in asked for device in find(builder, search)}.values())
    choose(found, "remove", yes=yes)
    fresh = [device for device in found if device.id not in builder.removed]
    lines = [f"{named(device)} marked for removal and will be removed next rebalance." for device in fresh]
    lines += [f"{named(device)} is being removed already" for device in found if device not in fresh]
    for device in fresh:
        builder.remove(device.id)
    if fresh:
        file.save(builder)
    click.echo("\n".join(lines))
    return CHANGED if fresh else UNCHANGED


for _verb in (set_weight, set_region, set_zone, set_info, remove):
    _verb.epilog = SEARCH_HELP


# ---- in common


def _set(
    file: RingFile,
    /,
    asked: Sequence[tuple[Any, str]],
    action: str,
    parse: Callable[[str], Any],
    change: Callable[[Builder, Device, Any], tuple[bool, str]],
    *,
    yes: bool,
    also_removed: bool = False,
) -> int:
    """Changes what each search finds; writes once, and only when something is new."""
    wanted = [(search, parse(text)) for search, text in asked]
    builder = file.load()
    lines, anything = [], False
    for search, value in wanted:
        found = find(builder, search)
        choose(found, action, yes=yes)
        for device in found:
            if device.id in builder.removed and not also_removed:
                raise Conflict(f"{named(device)} is marked for removal; nothing was changed")
            changed, line = change(builder, device, value)
            lines.append(line if changed else f"{named(device)} is so already")
            anything = anything or changed
    if anything:
        file.save(builder)
    click.echo("\n".join(lines))
    return CHANGED if anything else UNCHANGED


def _refuse_increase(builder: Builder) -> None:
    if builder.next_part_power is not None:
        raise Conflict("the partition power is being increased", hint="finish_increase_partition_power or cancel it first")


def _weight(text: str) -> float:
    """The Builder says which numbers are weights."""
    try:
        return float(text)
    except ValueError:
        raise BadInput(f"not a weight: {text}", hint="a number from 0 on") from None


def _whole(what: str) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not re.fullmatch(r"\d{1,9}", text, re.ASCII):
            raise BadInput(f"not a {what}: {text}", hint="a whole number from 0 on")
        return int(text)

    return parse


def _text(text: str) -> str:
    """A name or meta: nothing that would break a line of the table or a JSON file."""
    if not text.isprintable():
        raise BadInput(f"neither a name nor meta may have control characters: {text!r}")
    return text

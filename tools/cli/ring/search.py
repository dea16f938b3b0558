"""Search values: which devices an operator means, in the forms of swift-ring-builder(1).

A search value is ``d<id>r<region>z<zone>-<ip>:<port>R<r_ip>:<r_port>/<name>_<meta>``: every part may be left out, their order
stays.  The long options (--region 1 --device sdb1) say the same.  A device matches when it has all that is given; of meta, a part
of it will do.  Parses and compares; ``devices.py``, ``look.py`` act on what is found.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, TypeVar

import click

from ring.builder.builder import Builder
from ring.device import Device
from ring.errors import BadInput, NotFound

F = TypeVar("F", bound=Callable[..., Any])

_IP = r"\d[\d.]*|\[[^\]]*\]"
_VALUE = re.compile(
    r"(?:d(?P<id>\d+))?(?:r(?P<region>\d+))?(?:z(?P<zone>\d+))?"
    rf"-?(?P<ip>{_IP})?(?::(?P<port>\d+))?"
    rf"(?:R(?P<replication_ip>{_IP})?(?::(?P<replication_port>\d+))?)?"
    r"(?:/(?P<name>[^_]*))?(?:_(?P<meta>.*))?",
    re.ASCII | re.DOTALL,
)
_HOST_LABEL = re.compile(r"(?!-)[a-z0-9-]{1,63}(?<!-)", re.ASCII)
_NUMBERS = {"id", "region", "zone", "port", "replication_port"}
_DIGITS_MAX = 9  # of any number but a weight: what every format holds
SEARCH_HELP = """\b
Search values: d<id>r<region>z<zone>-<ip>:<port>R<r_ip>:<r_port>/<name>_<meta>,
each part optional, in this order:
  d74                  the device with the id 74
  r4, z1, r4z1         all of a region, of a zone
  z1-10.0.0.4          all of a server in zone 1
  10.0.0.4:6200        by address; [fd00::4]:6200
  R10.1.0.4:6201       by replication address
  /sdb1                by name
  _shiny               by a part of meta"""


def whole(text: str) -> int:
    """A whole number from 0 on, as the value of an option."""
    if not (text.isascii() and text.isdecimal() and len(text) <= _DIGITS_MAX):
        raise click.BadParameter(f"{text} is not a whole number from 0 on.")
    return int(text)


@dataclass(frozen=True, slots=True)
class Search:
    """What a device must have; None: whatever."""

    id: int | None = None
    region: int | None = None
    zone: int | None = None
    ip: str | None = None
    port: int | None = None
    replication_ip: str | None = None
    replication_port: int | None = None
    name: str | None = None
    weight: float | None = None
    meta: str | None = None

    def matches(self, device: Device) -> bool:
        return all(_agree(name, wanted, getattr(device, name)) for name, wanted in self.given().items())

    def given(self) -> dict[str, Any]:
        return {f.name: value for f in fields(self) if (value := getattr(self, f.name)) is not None}


def _agree(name: str, wanted: Any, found: Any) -> bool:
    if name == "meta":
        return bool(wanted in found)
    if name in ("ip", "replication_ip"):
        return bool(wanted == found or wanted == _normal(found))
    return bool(wanted == found)


def _normal(address: str) -> str:
    """As ``ip`` writes it; a name as it is."""
    try:
        return ipaddress.ip_address(address).compressed
    except ValueError:
        return address.lower()


def ip(text: str) -> str:
    """An IPv4 or IPv6 address in its one short form, brackets taken off.  BadInput when it is none."""
    bare = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    try:
        return ipaddress.ip_address(bare).compressed
    except ValueError:
        raise BadInput(f"not an IP address: {text}", hint="10.0.0.4, or [fd00::4]") from None


def host(text: str) -> str:
    """An address, or the name of a host."""
    labels = text.lower().removesuffix(".").split(".")
    if text.startswith("[") or ":" in text or labels[-1].isdigit():
        return ip(text)
    if not all(map(_HOST_LABEL.fullmatch, labels)):
        raise BadInput(f"neither an IP address nor the name of a host: {text}")
    return text.lower()


def parse_search(text: str) -> Search:
    match = _VALUE.fullmatch(text)
    given: dict[str, Any] = {} if match is None else {key: value for key, value in match.groupdict().items() if value is not None}
    if not given or any(len(given.get(key, "")) > _DIGITS_MAX for key in _NUMBERS):
        hint = "/sdb1 finds a device by its name, d3 by its id, z1-10.0.0.4:6200/sdb1_old by more; --help tells all"
        raise BadInput(f"not a search value: {text or 'nothing'}", hint=hint)
    for key in given.keys() & {"ip", "replication_ip"}:
        given[key] = ip(given[key])
    for key in given.keys() & _NUMBERS:
        given[key] = int(given[key])
    return Search(**given)


def named(device: Device) -> str:
    """As swift-ring-builder names a device in what it says."""
    replication = device.replication_address
    return f'd{device.id}r{device.region}z{device.zone}-{device.address}R{replication}/{device.name}_"{device.meta}"'


# ---- the long options

_OPTIONS = (
    click.option("-u", "--id", "search_id", type=whole, metavar="ID", help="Device id."),
    click.option("-r", "--region", type=whole, metavar="N", help="Region."),
    click.option("-z", "--zone", type=whole, metavar="N", help="Zone."),
    click.option("-i", "--ip", metavar="HOST", help="IP address or name of its server."),
    click.option("-p", "--port", type=whole, metavar="N", help="Port."),
    click.option("-j", "--replication-ip", metavar="HOST", help="Replication address."),
    click.option("-q", "--replication-port", type=whole, metavar="N", help="Replication port."),
    click.option("-d", "--device", "name", metavar="NAME", help="Device name: sdb1."),
    click.option("-w", "--weight", type=float, metavar="WEIGHT", help="Weight."),
    click.option("-m", "--meta", metavar="TEXT", help="A part of its meta."),
)
yes_option = click.option("-y", "--yes", is_flag=True, help="Do not ask when more than one device matches.")


def search_options(call: F) -> F:
    """The long options of a search; ``from_options`` takes their values, by name, out of what the verb is called with."""
    for option in reversed(_OPTIONS):
        call = option(call)
    return call


def from_options(options: Mapping[str, Any]) -> Search | None:
    """None when no option is given."""
    given = {"id" if key == "search_id" else key: value for key, value in options.items() if value not in (None, "")}
    for key in given.keys() & {"ip", "replication_ip"}:
        given[key] = host(given[key])
    return Search(**given) if given else None


# ---- finding


def find(builder: Builder, search: Search) -> list[Device]:
    """By id, ascending."""
    return [device for device in builder.present if search.matches(device)]


def searches(texts: Sequence[str], options: Mapping[str, Any]) -> list[Search]:
    """Of arguments or of options: BadInput when both or none are given."""
    by_option = from_options(options)
    if (by_option is None) == (not texts):
        raise BadInput("give a search value, or options, and not both", hint="d3, or --region 1 --device sdb1; --help tells all")
    return [parse_search(text) for text in texts] if by_option is None else [by_option]


def pairs(texts: Sequence[str], options: Mapping[str, Any], what: str) -> list[tuple[Search, str]]:
    """``SEARCH_VALUE WHAT`` repeated, or options and one WHAT."""
    by_option = from_options(options)
    if by_option is not None:
        if len(texts) != 1:
            raise BadInput(f"behind options stands one {what}, not {len(texts)} arguments")
        return [(by_option, texts[0])]
    if not texts or len(texts) % 2:
        raise BadInput(f"arguments come in pairs: SEARCH_VALUE {what}", hint=f"d3 {what} /sdb1 {what}; --help tells all")
    return [(parse_search(search), value) for search, value in zip(texts[::2], texts[1::2], strict=True)]


def choose(devices: Sequence[Device], action: str, *, yes: bool) -> None:
    """Asks when there is more than one; NotFound when there is none, BadInput when the answer is not y."""
    if not devices:
        raise NotFound("no device matches; nothing was changed", hint="ringfort ring FILE shows them all")
    if len(devices) == 1:
        return
    click.echo("Matched more than one device:")
    for device in devices:
        click.echo(f"    {named(device)}")
    if yes:
        return
    try:
        answer = input(f"Are you sure you want to {action} these {len(devices)} devices? (y/N) ")
    except EOFError:
        click.echo()
        raise BadInput("nobody was there to be asked; nothing was changed", hint="--yes") from None
    if answer.strip() != "y":
        raise BadInput("not confirmed; nothing was changed")

"""Verbs between us and Swift: import-swift, export-swift.

Reads and writes files of Swift whole, and says what of them was left behind; what their bytes mean is ``ring.swift``'s.  Never
overwrites anything unasked.  Neighbour: ``file.py`` writes what is ours.
"""

from __future__ import annotations

import json
import os

import click
import trio

from ring.builder.builder import Builder
from ring.errors import BadInput, Conflict, FormatError, NotFound, RingfortError
from ring.swift.carry import FromSwift
from ring.swift.ringgz import MIN_PART_HOURS, decode_ring_gz, encode_ring_gz
from ring.swift.swiftbuilder import decode_swift_builder, encode_swift_builder
from ring.world.interface import World
from tools.cli.ring.file import SUFFIX, RingFile
from tools.cli.ring.group import CHANGED, json_option, verb
from tools.cli.ring.settings import HOURS

RING_GZ = ".ring.gz"
_PICKLE, _GZIP = b"\x80", b"\x1f\x8b"  # how the two begin
FORCE = click.option("-f", "--force", is_flag=True, help="Write over what is there.")


@verb("import-swift")
@click.argument("source", type=click.Path())
@FORCE
@click.option("--min-part-hours", type=HOURS, help=f"For a .ring.gz, which does not say; {MIN_PART_HOURS} unless given.")
@json_option
@click.pass_obj
def import_swift(file: RingFile, source: str, force: bool, min_part_hours: int | None, as_json: bool) -> int:
    """Make FILE of SOURCE, a .builder or .ring.gz of Swift.

    Of a .builder: the builder, with all that Swift knew; write_ring writes its ring.  Of a .ring.gz: the ring, and a builder as far
    as a ring says what its builder was.  A name is in the same partition here only with Swift's hash path prefix and suffix.

    \b
      ringfort ring object.builder import-swift /etc/swift/object.builder
    """
    found = _decode(source, _read(source), min_part_hours)
    builder, with_ring = found.builder, found.kind != "builder"
    builder.id = builder.id or file.world.entropy.uuid().hex
    there = [path for path in (file.path, *([file.ring_path] if with_ring else [])) if os.path.lexists(path)]
    if there and not force:
        raise Conflict(f"{there[0]} exists already", hint="name another file, or --force to write over it")
    if os.path.lexists(file.path):
        file.load()  # a builder of ours: what else is there, Swift's own for one, is not written over
    file.save(builder, with_ring=with_ring)
    report = _report(found)
    report |= {"source": source, "builder": file.path, "ring": file.ring_path if with_ring else None}
    if as_json:
        click.echo(json.dumps(report, indent=2))
        return CHANGED
    click.echo(f"{file.path} is made of {source}: {_line(builder)}")
    click.echo("".join(f"NOTE: {note}\n" for note in found.notes), nl=False)
    if with_ring:
        click.echo(f"{file.ring_path} is written.")
    elif builder.table:
        click.echo(f"The nodes get it after: ringfort ring {file.path} write_ring")
    return CHANGED


@verb("export-swift")
@click.argument("target", type=click.Path())
@FORCE
@json_option
@click.pass_obj
def export_swift(file: RingFile, target: str, force: bool, as_json: bool) -> int:
    """Write TARGET for Swift: NAME.builder or NAME.ring.gz.

    A .builder has all that FILE has, and swift-ring-builder goes on from there; a .ring.gz is for Swift's nodes.

    \b
      ringfort ring object.builder export-swift /etc/swift/object.ring.gz
    """
    if not target.endswith((SUFFIX, RING_GZ)):
        raise BadInput(f"{target} is neither a {SUFFIX} nor a {RING_GZ}", hint="the end of its name says which to write")
    builder = file.load()
    data = encode_ring_gz(builder) if target.endswith(RING_GZ) else encode_swift_builder(builder)
    if os.path.realpath(target) in (os.path.realpath(file.path), os.path.realpath(file.ring_path)):
        raise BadInput(f"{target} is the builder itself", hint="name another file")
    _write(file.world, target, data, force)
    if as_json:
        click.echo(json.dumps({"target": target, "bytes": len(data)} | _facts(builder), indent=2))
    else:
        click.echo(f"{target} is written: {_line(builder)}")
    return CHANGED


# ---- files


def _read(source: str) -> bytes:
    try:
        with open(source, "rb") as opened:
            return opened.read()
    except FileNotFoundError as error:
        raise NotFound(f"there is no {source}") from error
    except OSError as error:
        raise RingfortError(f"{source}: {error.strerror or error}") from error


def _decode(source: str, data: bytes, min_part_hours: int | None) -> FromSwift:
    try:
        if data.startswith(_GZIP):
            return decode_ring_gz(data, min_part_hours=MIN_PART_HOURS if min_part_hours is None else min_part_hours)
        if data.startswith(_PICKLE):
            if min_part_hours is not None:
                raise BadInput("--min-part-hours is for a .ring.gz; a .builder says them itself")
            return decode_swift_builder(data)
    except RingfortError as error:
        raise type(error)(f"{source}: {error.message}", hint=error.hint) from error
    raise FormatError(f"{source} is neither a .builder nor a .ring.gz of Swift")


def _write(world: World, target: str, data: bytes, force: bool) -> None:
    folder, name = os.path.split(os.path.abspath(target))

    async def write() -> None:
        disk = world.open_disk(folder)
        info = await disk.info(name)
        if info is not None and info.is_dir:
            raise BadInput(f"{target} is a folder")
        if info is not None and not force:
            raise Conflict(f"{target} exists already", hint="name another file, or --force to write over it")
        await disk.replace_file(name, data)

    try:
        trio.run(write)
    except OSError as error:
        raise RingfortError(f"{target}: {error.strerror or error}; nothing was written") from error


# ---- words


def _facts(builder: Builder) -> dict[str, object]:
    return {
        "id": builder.id,
        "version": builder.version,
        "part_power": builder.part_power,
        "next_part_power": builder.next_part_power,
        "partitions": builder.partition_count,
        "replicas": builder.replicas,
        "min_part_hours": builder.min_part_hours,
        "overload": builder.overload,
        "devices": len(builder.present),
        "removed": sorted(builder.removed),
        "placed": sum(len(row) for row in builder.table),
    }


def _report(found: FromSwift) -> dict[str, object]:
    return {"kind": found.kind, **_facts(found.builder), "notes": list(found.notes)}


def _line(builder: Builder) -> str:
    return (
        f"version {builder.version}, {builder.partition_count} partitions, {builder.replicas:.6f} replicas, "
        f"{len(builder.present)} devices"
    )

"""The click group ``ring``: FILE, then a verb; no verb shows the ring.

Decides which module serves a verb, and what all verbs have in common; does nothing to a ring itself.  A verb's module is imported
when the verb is used (or when ``--help`` lists them), so that the start stays quick.

To add a verb:

1. In a module of this folder, a command made by ``verb()``::

       @verb()
       @click.option("--k", default=1, help="How many.")
       @json_option
       @click.pass_obj
       def simulate(file: RingFile, k: int, as_json: bool) -> int:
           \"\"\"One line for the list of verbs.

           More for its own --help; an example.
           \"\"\"
           builder = file.load()
           ...
           return CHANGED

2. A line in VERBS below, under the heading where an operator would look for it.

``file.load()`` gives the Builder; ``file.save(builder)`` writes it back as a whole, or Conflict when somebody changed it meanwhile.
``file.now()`` is wall time, ``file.world`` the World.  Errors of ``ring.errors`` become one line and a hint on stderr, exit 2.  The
returned number is the exit status: CHANGED, or shown (0), UNCHANGED or a warning (1).
"""

from __future__ import annotations

import difflib
import importlib
import json
import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import click

from ring.world.interface import World
from ring.world.real import make_world
from tools.cli.ring.file import RingFile
from tools.cli.ring.show import as_dict, as_text

__all__ = ["CHANGED", "UNCHANGED", "VERBS", "RingFile", "json_option", "ring", "verb"]

_OPTION = re.compile(r"--[^=]+|-[a-zA-Z]")
_NO_NUMBER = re.compile(r"-(?:inf|infinity|nan)", re.IGNORECASE)  # a minus and letters, but no option
F = TypeVar("F", bound=Callable[..., Any])
CHANGED, UNCHANGED = 0, 1
WARNING = UNCHANGED

# heading -> verb -> where its command is
_HERE = "tools.cli.ring"
VERBS: Mapping[str, Mapping[str, str]] = {
    "Make and change": {
        "create": f"{_HERE}.settings:create",
        "add": f"{_HERE}.devices:add",
        "set_weight": f"{_HERE}.devices:set_weight",
        "set_info": f"{_HERE}.devices:set_info",
        "set_region": f"{_HERE}.devices:set_region",
        "set_zone": f"{_HERE}.devices:set_zone",
        "remove": f"{_HERE}.devices:remove",
        "set_replicas": f"{_HERE}.settings:set_replicas",
        "set_overload": f"{_HERE}.settings:set_overload",
        "set_min_part_hours": f"{_HERE}.settings:set_min_part_hours",
        "pretend_min_part_hours_passed": f"{_HERE}.settings:pretend_min_part_hours_passed",
    },
    "Place": {
        "rebalance": f"{_HERE}.place:rebalance",
        "validate": f"{_HERE}.place:validate",
        "write_ring": f"{_HERE}.place:write_ring",
        "write_builder": f"{_HERE}.place:write_builder",
    },
    "Look": {
        "search": f"{_HERE}.look:search",
        "list_parts": f"{_HERE}.look:list_parts",
        "dispersion": f"{_HERE}.look:dispersion",
        "version": f"{_HERE}.look:version",
        "id": f"{_HERE}.look:id_",
    },
    "Partition power": {
        "prepare_increase_partition_power": f"{_HERE}.settings:prepare_increase_partition_power",
        "increase_partition_power": f"{_HERE}.settings:increase_partition_power",
        "cancel_increase_partition_power": f"{_HERE}.settings:cancel_increase_partition_power",
        "finish_increase_partition_power": f"{_HERE}.settings:finish_increase_partition_power",
    },
    "Beyond swift-ring-builder": {
        "plan": f"{_HERE}.analysis:plan",
        "certificate": f"{_HERE}.analysis:certificate",
        "simulate": f"{_HERE}.simulation:simulate",
        "plot": f"{_HERE}.analysis:plot",
        "publish": f"{_HERE}.publish:publish_verb",
        "status": f"{_HERE}.publish:status",
        "import-swift": f"{_HERE}.swift:import_swift",
        "export-swift": f"{_HERE}.swift:export_swift",
    },
}


class _Ring(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return [name for verbs in VERBS.values() for name in verbs]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        target = next((verbs[cmd_name] for verbs in VERBS.values() if cmd_name in verbs), None)
        if target is None:
            return None
        module, _, attribute = target.partition(":")
        command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """``--json`` may stand behind FILE, where a group would look for a verb."""
        if args[1:2] == ["--json"]:
            args = ["--json", args[0], *args[2:]]
        return super().parse_args(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for heading, verbs in VERBS.items():
            with formatter.section(heading):
                rows = [(name, command.get_short_help_str(200)) for name in verbs if (command := self.get_command(ctx, name))]
                if rows:
                    formatter.write_dl(rows)


class Verb(click.Command):
    """A command whose arguments may begin with a minus: ``-1`` as a weight, ``-10.0.0.1`` as a search value."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """NoSuchOption here, as click does not look for unknown options then."""
        known = {name for parameter in self.get_params(ctx) for name in parameter.opts if name.startswith("-")}
        for argument in args:
            if argument == "--":
                break
            if _NO_NUMBER.fullmatch(argument):
                raise click.UsageError(f"not a number that can be used: {argument}", ctx)
            option = _OPTION.match(argument)
            if option is not None and option[0] not in known:
                long = [name for name in known if name.startswith("--")]
                raise click.NoSuchOption(option[0], possibilities=difflib.get_close_matches(option[0], long, 1), ctx=ctx)
        ctx.ignore_unknown_options = True
        return super().parse_args(ctx, args)


def verb(name: str | None = None) -> Callable[[Callable[..., Any]], click.Command]:
    """Decorates a verb's function; it is called as the function is unless ``name`` says otherwise."""

    def decorate(call: Callable[..., Any]) -> click.Command:
        return click.command(name or call.__name__, cls=Verb)(call)

    return decorate


json_option = click.option("--json", "as_json", is_flag=True, help="Print as JSON.")


@click.group(cls=_Ring, invoke_without_command=True, subcommand_metavar="[VERB [ARGUMENTS]...]")
@click.argument("file", type=click.Path())
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
@click.pass_context
def ring(ctx: click.Context, file: str, as_json: bool) -> int:
    """Show or change the ring in FILE; no verb shows it.

    FILE is NAME.builder, or NAME; the ring that the nodes read is NAME.ring beside it, and backups are in backups/.

    Exit status: 0 changed (or shown), 1 nothing changed or a warning, 2 an error.
    """
    world = ctx.obj if isinstance(ctx.obj, World) else make_world()
    ctx.obj = RingFile(file, world)
    if ctx.invoked_subcommand is not None:
        if as_json:
            raise click.UsageError("--json stands behind the verb", ctx)
        return CHANGED
    builder = ctx.obj.load()
    click.echo(json.dumps(as_dict(ctx.obj, builder), indent=2) if as_json else as_text(ctx.obj, builder))
    return CHANGED

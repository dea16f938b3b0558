"""``ringfort``: one command, one noun per module of this folder.

Decides which module serves a noun and how errors look; does nothing itself.  A noun's module is imported when it is used (or when
``--help`` lists it), so that the start stays quick.  To add a noun, add a line to NOUNS.

Exit status: 0 done, 1 nothing changed or a warning, 2 an error: one line ``ringfort: message`` and one ``hint: ...`` on stderr.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

import click

from ring.errors import RingfortError
from ring.world.interface import World

NOUNS = {
    "recon": "tools.cli.recon:recon",
    "node": "tools.cli.node:node",
    "returned": "tools.cli.returned:returned",
    "ring": "tools.cli.ring.group:ring",
    "up": "tools.cli.up:up",
    "worker": "tools.cli.worker:worker",
}
EXIT_ERROR = 2
VERSION = "0.1.0"  # as in pyproject.toml; a test compares them


class _Nouns(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(NOUNS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        target = NOUNS.get(cmd_name)
        if target is None:
            return None
        module, _, attribute = target.partition(":")
        command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command


def _version(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if value:
        click.echo(f"ringfort {VERSION}")
        ctx.exit()


@click.group(cls=_Nouns, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_version, help="Show the version and exit.")
def ringfort() -> None:
    """A storage-first cloud: objects, volumes, images and guests."""


def complain(message: str, hint: str = "") -> None:
    """One clear line on stderr, and what to do about it."""
    click.echo(f"ringfort: {' '.join(message.split())}", err=True)
    if hint:
        click.echo(f"hint: {' '.join(hint.split())}", err=True)


def run(arguments: Sequence[str], world: World | None = None) -> int:
    """Run one command line, in ``world`` where a noun takes one (this machine unless given); its exit status."""
    try:
        result = ringfort.main(list(arguments), prog_name="ringfort", standalone_mode=False, obj=world)
    except click.UsageError as error:
        where = error.ctx.command_path if error.ctx is not None else "ringfort"
        complain(error.format_message(), f"{where} --help")
        return EXIT_ERROR
    except click.ClickException as error:
        complain(error.format_message())
        return EXIT_ERROR
    except RingfortError as error:
        complain(error.message, error.hint)
        return EXIT_ERROR
    except OSError as error:  # of standard output, for one; what is on disks has errors of its own
        complain(error.strerror or str(error))
        return EXIT_ERROR
    except (click.Abort, KeyboardInterrupt):
        complain("interrupted")
        return 130
    return result if isinstance(result, int) else 0


def main() -> None:
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()

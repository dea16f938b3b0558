"""``ringfort up``: a cloud on this machine, in the foreground.  Parses and calls ``tools.deploy.supervisor``."""

from __future__ import annotations

import os
from pathlib import Path

import click

from tools.deploy.checks import Options
from tools.deploy.policies import parse
from tools.deploy.supervisor import up as run


@click.command()
@click.option(
    "--data", required=True, type=click.Path(path_type=Path), help="The cloud's folder; made on the first run, resumed later."
)
@click.option("--devices", type=int, help="Number of devices (first run; default 4).")
@click.option("--replicas", type=int, help="Copies of every object (first run; default 3).")
@click.option("--workers", type=int, help="Worker processes (default: one per core).")
@click.option("--object-port", type=int, default=8080, show_default=True, help="S3 and Swift; 0 lets the system choose.")
@click.option("--control-port", type=int, default=8000, show_default=True, help="Identity, image, volume, compute.")
@click.option("--iscsi-port", type=int, default=3260, show_default=True, help="Volumes.")
@click.option("--bind", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--policy",
    "policies",
    multiple=True,
    metavar="name=NAME,type=ec,k=K,m=M",
    help="A storage policy beside policy 0, made if it is not there; or name=NAME,type=replication,replicas=N"
    "[,consistency=available]; with ,default it is that of containers that name none.  May be given again and again.",
)
@click.option("--public-host", default="", help="Host name in the catalog and the client files (default: --bind).")
def up(
    data: Path,
    devices: int | None,
    replicas: int | None,
    workers: int | None,
    object_port: int,
    control_port: int,
    iscsi_port: int,
    bind: str,
    policies: tuple[str, ...],
    public_host: str,
) -> int:
    """Run a cloud until SIGTERM or Ctrl-C.

    Writes DIR/clouds.yaml, DIR/openrc and DIR/s3.env for clients, then DIR/ready.
    """
    asked = tuple(parse(policy) for policy in policies)
    options = Options(data, devices, replicas, workers, object_port, control_port, iscsi_port, bind, public_host, asked)
    return run(options, _say)


def _say(line: str) -> None:
    """A cloud does not end because nobody reads what it says: ``ringfort up | head -1``."""
    try:
        click.echo(line)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)

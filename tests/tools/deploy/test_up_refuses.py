"""``ringfort up`` that cannot start: one line, a hint, exit 2, nothing changed."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tools.cli.main import run
from tools.deploy.layout import FORMAT, SECRETS

TOP = Path(__file__).resolve().parents[3]
NO_PORTS = [word for name in ("object", "control", "iscsi") for word in (f"--{name}-port", "0")]


def tree(top: Path) -> list[tuple[str, int, int, bytes]]:
    """All that is there: path, mode, time of change, bytes."""
    found = []
    for path in sorted([top, *top.rglob("*")]):
        status = path.lstat()
        data = path.read_bytes() if path.is_file() else os.fsencode(os.readlink(path)) if path.is_symlink() else b""
        found.append((str(path), status.st_mode, status.st_mtime_ns, data))
    return found


def told(capfd: pytest.CaptureFixture[str]) -> tuple[str, str]:
    """The message and the hint; nothing else was written."""
    out, err = capfd.readouterr()
    lines = err.splitlines()
    assert out == "" and len(lines) == 2, (out, err)
    assert lines[0].startswith("ringfort: ") and lines[1].startswith("hint: ")
    return lines[0].removeprefix("ringfort: "), lines[1].removeprefix("hint: ")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--devices", "0"], "--devices 0: at least 1"),
        (["--devices", "-1"], "--devices -1: at least 1"),
        (["--devices", "5000"], "--devices 5000: at most 4096 on one machine"),
        (["--devices", "four"], "Invalid value for '--devices': 'four' is not a valid integer."),
        (["--replicas", "0"], "--replicas 0: at least 1"),
        (["--devices", "2", "--replicas", "3"], "--replicas 3 > --devices 2"),
        (["--replicas", "5"], "--replicas 5 > --devices 4 (the default)"),
        (["--policy", "name=x,type=ec,k=4,m=2"], "policy x (4+2) needs 6 devices, the cloud has 4"),
        (["--policy", "name=x,type=replication,replicas=5"], "policy x (5 replicas) needs 5 devices, the cloud has 4"),
        (["--policy", "name=policy-0,type=replication,replicas=3"], "the cloud has another policy policy-0"),
        (["--policy", "name=x,type=ec,k=0,m=2"], "0 data and 2 parity fragments cannot be"),
        (["--policy", "name=x,type=tape"], "--policy 'name=x,type=tape': there is no type 'tape'"),
        (["--policy", "name=x,type=ec,k=2"], "--policy 'name=x,type=ec,k=2': a policy of type ec has k and m, and nothing else"),
        (
            ["--policy", "name=x,type=ec,k=2,m=1,consistency=available"],
            "--policy 'name=x,type=ec,k=2,m=1,consistency=available': there is no consistency 'available' for it",
        ),
        (
            ["--policy", "name=x,type=replication,replicas=2,consistency=some"],
            "--policy 'name=x,type=replication,replicas=2,consistency=some': there is no consistency 'some' for it",
        ),
        (["--policy", "name=x,type=ec,k=2,m=two"], "--policy 'name=x,type=ec,k=2,m=two': m is a number, not 'two'"),
        (["--policy", "name=x,name=y"], "--policy 'name=x,name=y': 'name=y' is not understood"),
        (["--policy", "name=a/b,type=ec,k=2,m=1"], "--policy 'name=a/b,type=ec,k=2,m=1': 'a/b' is not a name"),
        (["--workers", "0"], "--workers 0: 1 to 256"),
        (["--object-port", "65536"], "--object-port 65536: 0 to 65535"),
        (["--iscsi-port", "-1"], "--iscsi-port -1: 0 to 65535"),
        (["--object-port", "40999", "--iscsi-port", "40999"], "--object-port and --iscsi-port are both 40999"),
        (["--bind", "localhost"], "--bind 'localhost' is not an address"),
        (["--bind", ""], "--bind '' is not an address"),
        (["--bind", "x" * 70 + ".."], f"--bind {'x' * 70 + '..'!r} is not an address"),
        (["--bind", "203.0.113.1"], "203.0.113.1 is not an address of this machine"),
        (["--public-host", "a b"], "--public-host 'a b' is not a host"),
        (["--speed", "9"], "No such option '--speed'."),
        (["more"], "Got unexpected extra argument (more)"),
    ],
)
def test_options(tmp_path: Path, capfd: pytest.CaptureFixture[str], arguments: list[str], message: str) -> None:
    before = tree(tmp_path)
    assert run(["up", "--data", str(tmp_path / "cloud"), *NO_PORTS, *arguments]) == 2
    assert told(capfd)[0] == message
    assert tree(tmp_path) == before


def test_data_is_needed(capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["up"]) == 2
    assert told(capfd) == ("Missing option '--data'.", "ringfort up --help")


@pytest.fixture
def taken() -> Iterator[int]:
    """A port that somebody listens on."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        yield listening.getsockname()[1]


@pytest.mark.parametrize("name", ["object", "control", "iscsi"])
@pytest.mark.parametrize("there", [False, True])
def test_a_port_in_use(tmp_path: Path, capfd: pytest.CaptureFixture[str], taken: int, name: str, there: bool) -> None:
    data = tmp_path / "cloud"
    if there:
        data.mkdir()
    before = tree(tmp_path)
    assert run(["up", "--data", str(data), *NO_PORTS, f"--{name}-port", str(taken)]) == 2
    assert told(capfd) == (f"port {taken} is in use on 127.0.0.1", f"choose another with --{name}-port")
    assert tree(tmp_path) == before


def _folders(top: Path) -> None:
    (top / "file").write_bytes(b"precious")
    (top / "foreign").mkdir()
    (top / "foreign" / "photo").write_bytes(b"precious")
    (top / "dangling").symlink_to(top / "nowhere")
    record = '"cluster_id":"00000000-0000-4000-8000-000000000000","devices":4,"replicas":3,"part_power":10'
    for name, text in (
        ("newer", '{"magic":"ringfort-cloud","format":99,"shape":"new"}'),
        ("not-ours", '{"magic":"other-cloud","format":1}'),
        ("rotten", '{"magic":"ringfort'),
        ("other-counts", f'{{"magic":"ringfort-cloud","format":1,{record}}}'),
        ("no-secrets", f'{{"magic":"ringfort-cloud","format":1,{record}}}'),
        ("open-secrets", f'{{"magic":"ringfort-cloud","format":1,{record}}}'),
    ):
        (top / name).mkdir()
        (top / name / "cloud.json").write_text(text)
        if name in ("other-counts", "open-secrets"):
            (top / name / "secrets").mkdir()
            for secret in SECRETS:
                (top / name / "secrets" / secret).write_text("secret")
                (top / name / "secrets" / secret).chmod(0o644 if name == "open-secrets" else 0o600)


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("file", [], "{} is not a folder"),
        ("dangling", [], "{} is not a folder"),
        ("none/cloud", [], "the parent folder of {} does not exist"),
        ("file/cloud", [], "{parent} is not a folder"),
        ("foreign", [], "{} is not empty and not a cloud (it has 'photo')"),
        ("newer", [], f"{{}} has format 99, this program knows up to {FORMAT}"),
        ("not-ours", [], "{}/cloud.json is not a cloud's record"),
        ("rotten", [], "{}/cloud.json cannot be read: Input data was truncated"),
        ("other-counts", ["--devices", "5"], "{} has 4 devices, not 5"),
        ("other-counts", ["--replicas", "2"], "{} has 3 replicas, not 2"),
        ("no-secrets", [], "{}/secrets/root.key is missing"),
        ("open-secrets", [], "{}/secrets/root.key can be read by others (mode 644)"),
        ("x" * 300, [], "{}: File name too long"),
    ],
)
def test_folders(tmp_path: Path, capfd: pytest.CaptureFixture[str], name: str, arguments: list[str], message: str) -> None:
    _folders(tmp_path)
    before = tree(tmp_path)
    data = tmp_path / name
    assert run(["up", "--data", str(data), *NO_PORTS, *arguments]) == 2
    assert told(capfd)[0] == message.format(data, parent=data.parent)
    assert tree(tmp_path) == before


@pytest.mark.parametrize(
    ("mount", "inside", "message"),
    [
        ("mount -t tmpfs -o ro none {}", "", "{} is on a read-only filesystem"),
        ("mount -t tmpfs -o ro none {}", "/cloud", "{} is on a read-only filesystem"),
        ("mount -t ramfs none {}", "", "the filesystem of {} has no user extended attributes (Operation not supported)"),
        ("mount -t ramfs none {}", "/cloud", "the filesystem of {} has no user extended attributes (Operation not supported)"),
        ("mount -t sysfs none {}", "/cloud", "the filesystem of {} cannot hold a device (no O_TMPFILE)"),
    ],
)
def test_filesystems(tmp_path: Path, mount: str, inside: str, message: str) -> None:
    """In a mount namespace of their own."""
    folder = tmp_path / "mounted"
    folder.mkdir()
    command = [sys.executable, "-m", "tools.cli.main", "up", "--data", f"{folder}{inside}", *NO_PORTS]
    listing = f"find {folder} -maxdepth 1 | sort"
    script = f"{mount.format(folder)} && before=$({listing}) && {{ {' '.join(command)}; status=$?; }}; "
    script += f'[ "$before" = "$({listing})" ] || echo changed; exit $status'
    namespace = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--mount", "--map-root-user"]
    done = subprocess.run([*namespace, "sh", "-c", script], cwd=TOP, capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.returncode) == ("", 2), done
    first, hint = done.stderr.splitlines()
    assert first == f"ringfort: {message.format(folder)}"
    assert hint.startswith("hint: ")

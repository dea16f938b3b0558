"""The record of a cloud's folder: an older program refuses it at once, a newer one says first that it was here."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from ring.errors import FormatError
from storage.object.device import FORMATS
from tools.cli.main import run
from tools.deploy.layout import FORMAT, CloudRecord, Layout

FORMATS_OF = {2: {"label": 1, "pack": 3, "file": 1, "index": 3, "rows": 1}}  # by the folder's format, those of its devices


def made(folder: Path, version: int) -> Layout:
    layout = Layout(folder)
    record = CloudRecord(cluster_id="c", devices=1, replicas=1, part_power=4, format=version)
    layout.record.write_bytes(msgspec.json.encode(record))
    return layout


def test_the_folder_has_a_newer_format_when_its_devices_have() -> None:
    assert FORMATS_OF[FORMAT] == FORMATS, "raise FORMAT of tools.deploy.layout, and say here what belongs to it"


@pytest.mark.parametrize("command", [["up"], ["node", "status"], ["recon"], ["ring", "object", "status"]])
def test_a_newer_folder_is_refused_at_once(tmp_path: Path, command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    made(tmp_path, FORMAT + 1)
    assert run([*command, "--data", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert f"has format {FORMAT + 1}, this program knows up to {FORMAT}" in said and "upgrade this one" in said
    assert [path.name for path in tmp_path.iterdir()] == ["cloud.json"]


def test_an_older_folder_is_raised(tmp_path: Path) -> None:
    layout = made(tmp_path, 1)
    before = layout.read_record()
    assert before is not None and before.format == 1
    after = layout.raised(before)
    assert after == layout.read_record() == msgspec.structs.replace(before, format=FORMAT)
    written = layout.record.stat().st_mtime_ns
    assert layout.raised(after) == after and layout.record.stat().st_mtime_ns == written


def test_what_is_no_record(tmp_path: Path) -> None:
    (tmp_path / "cloud.json").write_bytes(b'{"magic": "something", "format": 1}')
    with pytest.raises(FormatError, match="not a cloud's record"):
        Layout(tmp_path).read_record()

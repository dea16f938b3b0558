"""ringfort.toml: defaults, values, and what is wrong with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from ring.daemon.config import ConfigError
from tools.deploy.settings import FILE, Settings, load_settings


def test_without_a_file_everything_has_its_default(tmp_path: Path) -> None:
    assert load_settings(tmp_path) == Settings()


def test_values_replace_defaults(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text('[objects]\ns3_hosts = ["s3.example.org"]\n[identity]\ntoken_ttl_s = 60\n[log]\nlevel = "DEBUG"\n')
    settings = load_settings(tmp_path)
    assert (settings.objects.s3_hosts, settings.identity.token_ttl_s, settings.log.level) == (("s3.example.org",), 60.0, "DEBUG")
    assert settings.background == Settings().background


@pytest.mark.parametrize(
    "text, said",
    [
        ("[object]\n", "'object'"),
        ("[objects]\nmemory_byte = 1\n", "memory_byte"),
        ("[objects]\nmemory_bytes = 0\n", "memory_bytes"),
        ("[identity]\ntoken_ttl_s = nan\n", "token_ttl_s"),
        ("[background]\nreap_delay_s = -1\n", "reap_delay_s"),
        ("[background]\nshard_rows = 1\n", "shard_rows"),
        ("[background]\nyield_floor = 0\n", "yield_floor"),
        ("[background]\nyield_floor_urgent = 1.5\n", "yield_floor_urgent"),
        ("[background]\nyield_slowdown = nan\n", "yield_slowdown"),
        ("[devices]\nreserve_share = 0.6\n", "reserve_share"),
        ("[devices]\nreserve_bytes = 0\n", "reserve_bytes"),
        ('[log]\nlevel = "LOUD"\n', "level"),
        ("objects = 3\n", "objects"),
        ("[", "TOML"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / FILE).write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_settings(tmp_path)
    assert said in caught.value.message and FILE in caught.value.message

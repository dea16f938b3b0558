"""Domain XML: what is in it, and that no name can change what it means."""

from __future__ import annotations

from uuid import UUID

import pytest
from defusedxml.ElementTree import fromstring
from hypothesis import given
from hypothesis import strategies as st

from blockgw.client.interface import Connection
from compute.hypervisor.domain import domain_xml, secret_usage, secret_xml
from compute.hypervisor.interface import GuestSpec

GUEST = UUID("11111111-2222-4333-8444-555555555555")
HOSTILE = "</title><devices><hostdev/></devices>&amp;'\"<!-- ]]> \x00\n\x1b\ud800"


def spec(name: str = "guest", *, user: str = "user", portal: str = "127.0.0.1:3260", iqn: str = "iqn.x:v") -> GuestSpec:
    return GuestSpec(GUEST, name, 2, 512, Connection(portal, iqn, 1, user, "secret"))


def test_what_the_guest_gets() -> None:
    domain = fromstring(domain_xml(spec(), virt_type="qemu", console_path="/c/guest.log"))
    assert domain.get("type") == "qemu" and domain.findtext("name") == f"ringfort-{GUEST}"
    assert (domain.findtext("memory"), domain.findtext("vcpu"), domain.findtext("title")) == ("512", "2", "guest")
    source = domain.find("devices/disk/source")
    assert source.attrib == {"protocol": "iscsi", "name": "iqn.x:v/1"}
    assert source.find("host").attrib == {"name": "127.0.0.1", "port": "3260"}
    assert source.find("auth").get("username") == "user"
    assert source.find("auth/secret").attrib == {"type": "iscsi", "usage": secret_usage(spec())}
    assert domain.find("devices/serial/source").get("path") == "/c/guest.log"
    assert domain.find("cpu").get("mode") == "maximum"


def test_kvm_passes_the_processor_through() -> None:
    assert fromstring(domain_xml(spec(), virt_type="kvm", console_path="/c")).find("cpu").get("mode") == "host-passthrough"


def test_an_ipv6_portal() -> None:
    domain = fromstring(domain_xml(spec(portal="[::1]:3260"), virt_type="qemu", console_path="/c"))
    assert domain.find("devices/disk/source/host").attrib == {"name": "::1", "port": "3260"}


def test_the_chap_secret_itself_is_in_no_xml() -> None:
    assert "secret</" not in domain_xml(spec(), virt_type="qemu", console_path="/c")
    secret = fromstring(secret_xml(spec()))
    assert secret.findtext("uuid") == str(GUEST) and secret.findtext("usage/target") == secret_usage(spec())
    assert secret.get("private") == "yes"


@pytest.mark.parametrize("name", [HOSTILE, "", "x" * 255, "a\nb", "\x7f", "日本"])
def test_names_stay_text(name: str) -> None:
    domain = fromstring(domain_xml(spec(name), virt_type="qemu", console_path="/c"))
    plain = fromstring(domain_xml(spec(), virt_type="qemu", console_path="/c"))
    assert [one.tag for one in domain.iter()] == [one.tag for one in plain.iter()]
    assert "\n" not in (domain.findtext("title") or "")
    assert [one.tag for one in fromstring(secret_xml(spec(name))).iter()] == ["secret", "uuid", "description", "usage", "target"]


@given(st.text(st.characters(exclude_categories=["Cc", "Cs", "Cn", "Co", "Zl", "Zp", "Cf", "Zs"]), max_size=30))
def test_names_are_read_back_as_they_were(name: str) -> None:
    domain = fromstring(domain_xml(spec(name, user="u<'\">&", iqn="i<'\">&"), virt_type="qemu", console_path="/c<'\">&"))
    assert (domain.findtext("title") or "") == name
    assert domain.find("devices/disk/source").get("name") == "i<'\">&/1"
    assert domain.find("devices/disk/source/auth").get("username") == "u<'\">&"
    assert domain.find("devices/console/source").get("path") == "/c<'\">&"

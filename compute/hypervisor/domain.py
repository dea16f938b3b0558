"""A GuestSpec as libvirt's domain XML (libvirt.org/formatdomain.html), and its iSCSI secret's.  Pure; everything is escaped."""

from __future__ import annotations

from xml.sax.saxutils import escape, quoteattr

from compute.hypervisor.interface import GuestSpec


def _plain(text: str) -> str:
    """Escaped, and without what XML 1.0 has no way to say and titles may not hold (control characters, line ends)."""
    return escape("".join(one if one.isprintable() else "?" for one in text))


def secret_usage(spec: GuestSpec) -> str:
    return f"ringfort-{spec.id}"


def secret_xml(spec: GuestSpec) -> str:
    """For the CHAP secret of the guest's root disk.  It has the guest's own id, so that it is found again."""
    return (
        f"<secret ephemeral='no' private='yes'><uuid>{spec.id}</uuid>"
        f"<description>root disk of {_plain(spec.name)}</description>"
        f"<usage type='iscsi'><target>{escape(secret_usage(spec))}</target></usage></secret>"
    )


def domain_xml(spec: GuestSpec, *, virt_type: str, console_path: str) -> str:
    """``virt_type``: "kvm" or "qemu" (TCG).  One virtio disk, a serial console into a file, no network."""
    host, _, port = spec.disk.portal.rpartition(":")
    cpu = "<cpu mode='host-passthrough'/>" if virt_type == "kvm" else "<cpu mode='maximum'/>"
    return f"""<domain type={quoteattr(virt_type)}>
  <name>{escape(f"ringfort-{spec.id}")}</name>
  <title>{_plain(spec.name)}</title>
  <uuid>{spec.id}</uuid>
  <memory unit='MiB'>{spec.memory_mib}</memory>
  <vcpu>{spec.vcpus}</vcpu>
  <os><type arch='x86_64' machine='q35'>hvm</type></os>
  <features><acpi/><apic/></features>
  {cpu}
  <clock offset='utc'/>
  <on_poweroff>destroy</on_poweroff>
  <on_reboot>restart</on_reboot>
  <on_crash>destroy</on_crash>
  <devices>
    <disk type='network' device='disk'>
      <driver name='qemu' type='raw' cache='none' discard='unmap'/>
      <source protocol='iscsi' name={quoteattr(f"{spec.disk.iqn}/{spec.disk.lun}")}>
        <host name={quoteattr(host.strip("[]"))} port={quoteattr(port)}/>
        <auth username={quoteattr(spec.disk.chap_user)}>
          <secret type='iscsi' usage={quoteattr(secret_usage(spec))}/>
        </auth>
        <initiator><iqn name={quoteattr(f"iqn.2026-01.org.ringfort:guest-{spec.id}")}/></initiator>
      </source>
      <target dev='vda' bus='virtio'/>
      <boot order='1'/>
    </disk>
    <serial type='file'><source path={quoteattr(console_path)} append='on'/><target port='0'/></serial>
    <console type='file'><source path={quoteattr(console_path)} append='on'/><target type='serial' port='0'/></console>
    <rng model='virtio'><backend model='random'>/dev/urandom</backend></rng>
    <memballoon model='virtio'/>
  </devices>
</domain>
"""

"""The machine that guests run on, behind one interface.

interface  GuestSpec, GuestState, Hypervisor
libvirt    qemu:///system through libvirt-python: KVM where the processor has it, TCG else
domain     pure: a GuestSpec as libvirt's domain XML
fake       guests in RAM
"""

"""Images and servers: Glance v2 and Nova v2.1 over the block gateway and a hypervisor.

images/      image records and their API; the bytes are blockgw's
servers/     server records, flavors, their API, and the agent that makes them true
hypervisor/  interface, libvirt, fake
"""

"""The composition root: a cloud on one machine, made of processes.

layout      what lies where below DIR, and the record of what DIR is
create      the first run: secrets, rings, formatted devices
settings    ringfort.toml: what an operator may set
checks      what is wrong with DIR or the ports, before anything is changed
supervisor  the main process: locks DIR, binds the sockets, starts workers and restarts those that die
worker      one worker process: composes every room and serves
rooms       the rooms of a worker, put together
beside      disks of the logs that lie beside objects on a device: not used while the device is not there
asking      what each worker process says over its own socket: device_status, ring_status, recon
storage     the devices of a worker and its view of the cluster's storage
logfile     bounded logs
iscsi       accepts initiators and hands each to the worker that owns its volume
clients     clouds.yaml, openrc, s3.env
libvirtd    finds or starts libvirt; KVM or TCG
demo        `make demo`: the main job with a timeline
guest/      the guest image the demo boots
"""

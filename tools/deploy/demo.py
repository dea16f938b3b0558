"""``make demo``: the main job on real input, with a timeline.

A cloud is started; a bootable image is made; it goes in by S3 and Swift and comes out the same; it becomes an image, a volume that
copies nothing, a guest; the guest writes; everything is killed; everything is there again.  KEEP=1 leaves the cloud running,
IMAGE=path boots another raw image (MARKER=text: what its console says when it is up).
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console
from rich.table import Table

from ring.errors import RingfortError
from tools.deploy import libvirtd
from tools.deploy.guest.image import build, package_cache
from tools.deploy.layout import Layout
from tools.deploy.session import CloudClient, CloudFailed, RunningCloud
from tools.deploy.supervisor import lock

PART_BYTES = 8 << 20
BOOT_S = 180.0
TELL = "RINGFORT-GUEST"
TOP = Path(__file__).resolve().parents[2]


@dataclass(slots=True)
class Step:
    name: str
    seconds: float
    size: int | None


@dataclass(slots=True)
class Timeline:
    console: Console
    steps: list[Step] = field(default_factory=list)

    @contextmanager
    def step(self, name: str) -> Iterator[Step]:
        """Time a step; its body may set ``size``."""
        step = Step(name, 0.0, None)
        began = time.monotonic()
        self.console.print(f"[bold]{name}[/bold]")
        yield step
        step.seconds = time.monotonic() - began
        self.steps.append(step)
        size = f"  {step.size:,} bytes" if step.size is not None else ""
        self.console.print(f"    {step.seconds:.2f} s{size}")

    def table(self) -> Table:
        table = Table(title="The demo's timeline")
        table.add_column("step")
        table.add_column("seconds", justify="right")
        table.add_column("bytes", justify="right")
        for step in self.steps:
            table.add_row(step.name, f"{step.seconds:.2f}", f"{step.size:,}" if step.size is not None else "")
        table.add_row("all", f"{sum(step.seconds for step in self.steps):.2f}", "", style="bold")
        return table


@dataclass(slots=True)
class Demo:
    console: Console
    data: Path
    image: Path | None  # None: made on the spot
    marker: str
    keep: bool
    timeline: Timeline
    cloud: RunningCloud | None = None
    server_id: str = ""

    def tear_down(self) -> None:
        """After a failure or an interrupt: no process and no guest is left behind."""
        if self.cloud is not None and self.cloud.process.poll() is None:
            self.cloud.kill()
        if self.server_id:
            libvirtd.remove_guest(self.server_id)

    def run(self) -> None:
        timeline = self.timeline
        with timeline.step("start a cloud: 4 devices, 3 replicas, one worker per core"):
            self.cloud = RunningCloud.start(self.data, "--devices", "4", "--replicas", "3")
        client = CloudClient(self.data)
        if self.image is None:
            with timeline.step("make a guest image from Debian packages") as step:
                self.image = self.data.with_name("demo-guest.raw")
                step.size = build(self.image, package_cache())
        data = self.image.read_bytes()
        wanted = hashlib.sha256(data).hexdigest()
        with timeline.step("upload it through S3, in parts") as step:
            self._upload_s3(client, data)
            step.size = len(data)
        with timeline.step("upload it through Swift") as step:
            client.call("object-store", "PUT", "/demo-swift")
            client.call("object-store", "PUT", "/demo-swift/guest.raw", content=data, expect=201)
            step.size = len(data)
        with timeline.step("download both and compare") as step:
            step.size = self._compare(client, wanted)
        with timeline.step("register it as an image: a server-side copy") as step:
            image_id = self._register(client, data)
            step.size = len(data)
        with timeline.step("make a volume from the image, copying nothing"):
            size = max(1, -(-len(data) // (1 << 30)))
            body = {"volume": {"size": size, "name": "demo-root", "imageRef": image_id}}
            volume_id = client.call("block-storage", "POST", "/volumes", body).json()["volume"]["id"]
            show = f"/volumes/{volume_id}"
            client.wait("the volume", lambda: _get(client, "block-storage", show, "volume", "status"), "available", bad=("error",))
        with timeline.step("boot a guest from the volume over iSCSI"):
            server_id = self.server_id = self._boot(client, volume_id)
            first = self._until_up(client, server_id, boot=1)
        with timeline.step("stop the guest with its power button"):
            client.call("compute", "POST", f"/servers/{server_id}/action", {"os-stop": None})
            self._wait_server(client, server_id, "SHUTOFF")
        client.close()
        with timeline.step("kill -9 every process of the cloud, start it again"):
            pids = self.cloud.pids()
            self.cloud.kill()
            self.console.print(f"    killed {len(pids)} processes")
            self.cloud = RunningCloud.start(self.data)
        client = CloudClient(self.data)
        with timeline.step("every object's bytes are intact") as step:
            step.size = self._compare(client, wanted)
            step.size += self._compare_image(client, image_id, wanted)
        with timeline.step("boot the guest again: what it wrote is there"):
            client.call("compute", "POST", f"/servers/{server_id}/action", {"os-start": None})
            second = self._until_up(client, server_id, boot=2)
            if first.get("wrote") != second.get("found"):
                raise CloudFailed(f"the guest wrote {first.get('wrote')} and found {second.get('found')}")
        if not self.keep:
            with timeline.step("delete server, volume and image; stop the cloud"):
                self._clean(client, server_id, volume_id, image_id)
                client.close()
                self.server_id = ""
                if status := self.cloud.stop():
                    raise CloudFailed(f"the cloud stopped with status {status}")

    def _upload_s3(self, client: CloudClient, data: bytes) -> None:
        client.s3("PUT", "/demo-s3")
        started = client.s3("POST", "/demo-s3/images/guest.raw", {"uploads": ""}).text
        found = re.search(r"<UploadId>([^<]+)</UploadId>", started)
        if found is None:
            raise CloudFailed(f"no UploadId in {started[:200]}")
        upload = found[1]
        parts = []
        for number, start in enumerate(range(0, len(data), PART_BYTES), start=1):
            query = {"partNumber": str(number), "uploadId": upload}
            reply = client.s3("PUT", "/demo-s3/images/guest.raw", query, data[start : start + PART_BYTES])
            parts.append(f"<Part><PartNumber>{number}</PartNumber><ETag>{reply.headers['ETag']}</ETag></Part>")
        body = f"<CompleteMultipartUpload>{''.join(parts)}</CompleteMultipartUpload>"
        client.s3("POST", "/demo-s3/images/guest.raw", {"uploadId": upload}, body.encode())

    def _compare(self, client: CloudClient, wanted: str) -> int:
        through_s3 = client.s3("GET", "/demo-s3/images/guest.raw").content
        through_swift = client.call("object-store", "GET", "/demo-swift/guest.raw").content
        for name, data in (("S3", through_s3), ("Swift", through_swift)):
            if hashlib.sha256(data).hexdigest() != wanted:
                raise CloudFailed(f"what came back through {name} is not what went in")
        return len(through_s3) + len(through_swift)

    def _compare_image(self, client: CloudClient, image_id: str, wanted: str) -> int:
        data = client.call("image", "GET", f"/v2/images/{image_id}/file").content
        if hashlib.sha256(data).hexdigest() != wanted:
            raise CloudFailed("the image's bytes are not what went in")
        return len(data)

    def _register(self, client: CloudClient, data: bytes) -> str:
        body = {"name": "demo-guest", "disk_format": "raw", "container_format": "bare"}
        image_id: str = client.call("image", "POST", "/v2/images", body, expect=201).json()["id"]
        method = {"name": "web-download", "uri": "s3://demo-s3/images/guest.raw"}
        client.call("image", "POST", f"/v2/images/{image_id}/import", {"method": method}, expect=202)
        client.wait("the image", lambda: _get(client, "image", f"/v2/images/{image_id}", "", "status"), "active", bad=("queued",))
        image = client.call("image", "GET", f"/v2/images/{image_id}").json()
        if (image["size"], image["checksum"]) != (len(data), hashlib.md5(data, usedforsecurity=False).hexdigest()):
            raise CloudFailed("the image's size or checksum is not the object's")
        return image_id

    def _boot(self, client: CloudClient, volume_id: str) -> str:
        disk = {"uuid": volume_id, "source_type": "volume", "destination_type": "volume", "boot_index": 0}
        server = {"name": "demo", "flavorRef": "1", "imageRef": "", "block_device_mapping_v2": [disk]}
        server_id: str = client.call("compute", "POST", "/servers", {"server": server}, expect=202).json()["server"]["id"]
        return server_id

    def _until_up(self, client: CloudClient, server_id: str, *, boot: int) -> dict[str, str]:
        """Show the console until the guest says that it is up; what our guest said of its journal."""
        shown = 0
        deadline = time.monotonic() + BOOT_S
        while time.monotonic() < deadline:
            status = _get(client, "compute", f"/servers/{server_id}", "server", "status")
            if status == "ERROR":
                fault = _get(client, "compute", f"/servers/{server_id}", "server", "fault")
                raise CloudFailed(f"the server is in ERROR: {fault}")
            action: dict[str, Any] = {"os-getConsoleOutput": {}}
            output = client.call("compute", "POST", f"/servers/{server_id}/action", action).json()["output"]
            for line in output[shown:].splitlines():
                if line.strip():
                    self.console.print(f"    | {line.strip()}", markup=False, highlight=False)
            shown = len(output)
            if self.marker.format(boot=boot) in output:
                said = [line for line in output.splitlines() if line.startswith(TELL)]
                return {words[1]: words[-1] for line in said if len(words := line.split()) > 2}
            time.sleep(0.3)
        raise CloudFailed(f"the guest did not say {self.marker.format(boot=boot)!r} within {BOOT_S:.0f} s")

    def _wait_server(self, client: CloudClient, server_id: str, wanted: str) -> None:
        look = f"/servers/{server_id}"
        client.wait("the server", lambda: _get(client, "compute", look, "server", "status"), wanted, bad=("ERROR",))

    def _clean(self, client: CloudClient, server_id: str, volume_id: str, image_id: str) -> None:
        client.call("compute", "DELETE", f"/servers/{server_id}", expect=204)
        client.wait("the server list", lambda: str(len(client.call("compute", "GET", "/servers").json()["servers"])), "0")
        client.call("block-storage", "DELETE", f"/volumes/{volume_id}", expect=202)
        client.wait("the volume list", lambda: str(len(client.call("block-storage", "GET", "/volumes").json()["volumes"])), "0")
        client.call("image", "DELETE", f"/v2/images/{image_id}", expect=204)


def _get(client: CloudClient, service: str, path: str, member: str, name: str) -> Any:
    body = client.call(service, "GET", path).json()
    return (body[member] if member else body)[name]


def main() -> int:
    console = Console(soft_wrap=True)
    image = Path(os.environ["IMAGE"]) if os.environ.get("IMAGE") else None
    marker = os.environ.get("MARKER") or ("login:" if image else f"{TELL} READY boot={{boot}}")
    keep = os.environ.get("KEEP", "") not in ("", "0")
    data = TOP / "build" / "demo"
    data.parent.mkdir(exist_ok=True)
    demo = Demo(console, data, image, marker, keep, Timeline(console))
    started = libvirtd.Started(())
    worked = False
    try:
        with demo.timeline.step("libvirt" + ("" if libvirtd.answers() else " (starting it)")):
            started = libvirtd.ensure()
        kvm = libvirtd.this_machines_virt_type() == "kvm"
        console.print(f"    guests run under {'KVM' if kvm else 'TCG (no vmx or svm here)'}")
        if data.exists():
            with demo.timeline.step("remove what the last demo left"):
                os.close(lock(Layout(data)))  # Conflict while that one is still running
                shutil.rmtree(data)
        demo.run()
        worked = True
    except (RingfortError, OSError, httpx.HTTPError) as error:
        console.print(f"[bold red]demo failed:[/bold red] {error}", highlight=False)
        hint = getattr(error, "hint", "")
        console.print(f"    {hint}" if hint else f"    logs: {data}.log {data}/logs/", highlight=False)
    except KeyboardInterrupt:
        console.print("[bold red]interrupted[/bold red]")
    finally:
        if not (worked and keep):
            demo.tear_down()
            started.stop()
    if not worked:
        return 1
    console.print(demo.timeline.table())
    if keep and demo.cloud is not None:
        console.print((data / "ready").read_text().rstrip(), highlight=False)
        console.print(f"the cloud runs on, its guest too; stop it with: kill {demo.cloud.process.pid}", highlight=False)
    console.print("[bold green]all of it worked[/bold green]")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Container images from a Debian package, in the archive format of `docker save`: no registry is asked for anything."""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import tarfile
from collections.abc import Mapping
from pathlib import Path

PAUSE = "docker.io/rancher/pause:3.1"
"""What k3s v1.21 makes every pod's sandbox of."""

TOOLS = "localhost/vcluster-test:1"
"""A shell and some sixty programs."""

APPLETS = ("cat", "echo", "hostname", "httpd", "id", "ip", "ls", "nslookup", "sh", "sleep", "timeout", "wget")


def archive(folder: Path) -> Path:
    """Both images in one file."""
    busybox = _busybox(folder)
    tools = {"bin/busybox": busybox, "www/index.html": b"from a pod\n"}
    files: dict[str, bytes] = {}
    manifest = [
        _image(files, PAUSE, {"bin/busybox": busybox}, (), ["/bin/busybox", "sleep", "2147483647"]),
        _image(files, TOOLS, tools, APPLETS, ["/bin/sh"]),
    ]
    files["manifest.json"] = json.dumps(manifest).encode()
    path = folder / "images.tar"
    path.write_bytes(_tar(files))
    return path


def _busybox(folder: Path) -> bytes:
    """Debian's, which needs no other file."""
    subprocess.run(["apt-get", "download", "-q", "busybox-static"], cwd=folder, check=True, capture_output=True)
    (package,) = folder.glob("busybox-static_*.deb")
    subprocess.run(["dpkg-deb", "-x", str(package), str(folder / "busybox")], check=True)
    found = next(path for path in (folder / "busybox").rglob("busybox") if path.is_file() and path.parent.name == "bin")
    return found.read_bytes()


def _image(
    files: dict[str, bytes], name: str, content: Mapping[str, bytes], links: tuple[str, ...], entry: list[str]
) -> dict[str, object]:
    layer = _tar(content, links)
    digest = hashlib.sha256(layer).hexdigest()
    config = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Entrypoint": entry, "Env": ["PATH=/bin"]},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
        }
    ).encode()
    config_name = f"{hashlib.sha256(config).hexdigest()}.json"
    files |= {config_name: config, f"{digest}/layer.tar": layer}
    return {"Config": config_name, "RepoTags": [name], "Layers": [f"{digest}/layer.tar"]}


def _tar(files: Mapping[str, bytes], links: tuple[str, ...] = ()) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(data), 0o755
            tar.addfile(entry, io.BytesIO(data))
        for name in links:
            entry = tarfile.TarInfo(f"bin/{name}")
            entry.type, entry.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(entry)
    return made.getvalue()

"""A bare JupyterHub for comparison: its process spawner, its own proxy, and vcluster's Caddy in front."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Self

from tests.hub.bed import BRIDGE, FIRST, Bed, own_folder
from tests.hub.machine import Hall, Machine
from tests.hub.visitors import visitors
from vcluster.rehearsal.client import Account, Door
from vcluster.rehearsal.report import Report
from vcluster.rehearsal.run import Script

PASSWORD = "bare"
CONFIG = """\
c.JupyterHub.bind_url = "http://127.0.0.1:8000"
c.JupyterHub.authenticator_class = "dummy"
c.DummyAuthenticator.password = {password!r}
c.Authenticator.allow_all = True
c.JupyterHub.spawner_class = "jupyterhub.spawner.LocalProcessSpawner"
c.Spawner.cmd = ["/opt/vcluster/user/bin/jupyterhub-singleuser"]
c.Spawner.default_url = "/lab"
c.ConfigurableHTTPProxy.command = ["/opt/vcluster/node/bin/node", {proxy!r}]
# What a class of this size needs for everybody to get in at all; the rest is as it comes.
c.JupyterHub.concurrent_spawn_limit = 0
c.Spawner.start_timeout = c.Spawner.http_timeout = 900
"""
PROXY = "/opt/vcluster/proxy/node_modules/.bin/configurable-http-proxy"
UNITS = {
    "bare-hub": "/opt/vcluster/hub/bin/jupyterhub --config /etc/bare/config.py",
    "bare-door": "/usr/bin/caddy run --config /etc/caddy/Caddyfile",
}
KEPT = ("/etc/caddy/Caddyfile", "/etc/vcluster/tls/cert.pem", "/etc/vcluster/tls/key.pem")


class Bare:
    """One machine with the files, the address and the certificate of a bed's head; a context manager.

    Args:
        bed: whose; only its address must be free again when this starts.
        users: how many accounts.
    """

    def __init__(self, bed: Bed, users: int) -> None:
        self._tree, self._ca, self._url = bed.tree, bed.ca, f"https://{FIRST}/"
        self._files = {path: (bed.head.run("cat", path).stdout.encode(), 0o600) for path in KEPT}
        self.names = [f"bare-{n:03d}" for n in range(1, users + 1)]
        self._hall: Hall | None = None
        self._machine: Machine | None = None

    def __enter__(self) -> Self:
        self.root = own_folder()
        shared = self.root / "shared"
        for name in ("home", "shared"):
            (shared / name).mkdir(parents=True)
        try:
            self._hall = Hall.open(BRIDGE)
            self._machine = Machine("head", str(FIRST), self.root / "machine", self._hall)
            self._machine.boot(self._tree, shared)
            self._machine.write({**self._files, **self._own()})
            lines = "".join(
                f"{name}:x:{50001 + n}:{50001 + n}::/home/{name}:/bin/bash\n" for n, name in enumerate(self.names)
            )
            self._machine.run("sh", "-c", "cat >> /etc/passwd", stdin=lines)
            for n, name in enumerate(self.names):
                self._machine.run(
                    "install", "-d", "-m", "700", "-o", str(50001 + n), "-g", str(50001 + n), f"/home/{name}"
                )
            self._machine.run("systemctl", "start", *UNITS)
            self._wait()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """End every process and remove every file."""
        if self._machine is not None:
            self._machine.kill()
        if self._hall is not None:
            self._hall.close()
        shutil.rmtree(self.root)

    def rehearse(self, script: Script) -> Report:
        """Send everybody in."""
        assert self._hall is not None
        accounts = [Account(name, PASSWORD) for name in self.names]
        return Report.of(visitors(self._hall, Door(self._url, self._ca), accounts, script))

    def _own(self) -> Mapping[str, tuple[bytes, int]]:
        config = CONFIG.format(password=PASSWORD, proxy=PROXY)
        files = {"/etc/bare/config.py": (config.encode(), 0o600)}
        for name, command in UNITS.items():
            text = f"[Service]\nWorkingDirectory=/root\nExecStart={command}\n"
            files[f"/etc/systemd/system/{name}.service"] = (text.encode(), 0o644)
        return files

    def _wait(self, seconds: float = 300.0) -> None:
        assert self._machine is not None
        end = time.monotonic() + seconds
        ask = "import urllib.request; print(urllib.request.urlopen('http://127.0.0.1:8000/hub/api/').read().decode())"
        while True:
            done = self._machine.run("python3", "-c", ask, check=False)
            if not done.returncode and "version" in json.loads(done.stdout):
                return
            if time.monotonic() > end:
                log = self._machine.run("cat", "/var/log/bed/bare-hub.service.log", check=False).stdout
                raise RuntimeError(f"the bare Hub does not answer:\n{log[-2000:]}")
            time.sleep(0.2)

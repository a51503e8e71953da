"""Kernels of a user's own environments: each that has ipykernel is offered, without being registered.

Jupyter finds registered ones by itself. A kernel specification that comes with an environment's ipykernel says
``python``, which is the server's, so these get the environment's own path.
"""

import time
from pathlib import Path

from jupyter_client.kernelspec import KernelSpecManager

PLACES = (
    ".venvs",
    "venvs",
    ".virtualenvs",
    "envs",
    ".conda/envs",
    "miniconda3/envs",
    "miniforge3/envs",
    "micromamba/envs",
)
KEEP = 30.0
MOST = 50


def environments(home):
    """Name and Python of each environment with ipykernel."""
    found = {}
    for place in PLACES:
        for python in sorted(Path(home, place).glob("*/bin/python"))[:MOST]:
            folder = python.parent.parent
            if any(folder.glob("lib/python*/site-packages/ipykernel/__main__.py")):
                name = "env-" + "".join(c if c.isalnum() or c in "-_." else "-" for c in folder.name.lower())
                found.setdefault(name, str(python))
    return found


class Kernels(KernelSpecManager):
    """Jupyter's own, and environments."""

    _seen = 0.0
    _found = None

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        # Here, because every server loads this by its settings, before it serves anybody.
        import vcluster_activity

        vcluster_activity.watch()

    def _environments(self):
        # A home may be far away, and this is asked each few seconds.
        if time.monotonic() - self._seen > KEEP or self._found is None:
            self._seen, self._found = time.monotonic(), {}
            try:
                self._found = environments(Path.home())
            except OSError as error:
                self.log.warning("Environments cannot be looked for: %s", error)
        return self._found

    def find_kernel_specs(self):
        own = super().find_kernel_specs()
        resources = own.get("python3", "")
        return {**dict.fromkeys(self._environments(), resources), **own}

    def get_kernel_spec(self, kernel_name):
        python = self._environments().get(kernel_name)
        if python is None or kernel_name in super().find_kernel_specs():
            return super().get_kernel_spec(kernel_name)
        return self.kernel_spec_class(
            resource_dir=super().find_kernel_specs().get("python3", ""),
            argv=[python, "-m", "ipykernel_launcher", "-f", "{connection_file}"],
            display_name=f"{Path(python).parent.parent.name} (own environment)",
            language="python",
        )

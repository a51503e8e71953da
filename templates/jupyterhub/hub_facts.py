"""The Hub's data on this machine: facts of the cluster, people and passwords, as JSON files of root's.

They lie in ``/etc/vcluster/hub``, or where ``VCLUSTER_HUB_FOLDER`` says.
"""

import json
import os
from pathlib import Path

FOLDER = Path(os.environ.get("VCLUSTER_HUB_FOLDER") or "/etc/vcluster/hub")


class Fresh:
    """A JSON object in a file, read again when the file was replaced; the last good one while it cannot be read."""

    def __init__(self, name, default=None):
        self.path = FOLDER / name
        self._value = {} if default is None else default
        self._seen = None

    def __call__(self):
        try:
            facts = self.path.stat()
            seen = (facts.st_mtime_ns, facts.st_ino, facts.st_size)
            if seen != self._seen:
                value = json.loads(self.path.read_text())
                if isinstance(value, dict):
                    self._value, self._seen = value, seen
        except (OSError, ValueError):
            pass
        return self._value


def facts():
    """What does not change while the Hub runs.

    Raises:
        OSError, ValueError: there is no hub.json, or it is no JSON.
    """
    return json.loads((FOLDER / "hub.json").read_text())


def public_url(hub):
    """Where people reach the Hub: the launcher told the head, or it is known from the spec."""
    told = Fresh("front.json")().get("url")
    return told or f"https://{hub.get('domain') or hub['head']['address']}/"

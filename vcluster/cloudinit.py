"""Reading cloud-init user data: for pretended machines, and for tests."""

from __future__ import annotations

import base64

__all__ = ["files_in"]


def files_in(user_data: str) -> dict[str, bytes]:
    """Every file that a user data text (``#cloud-config``) writes, by path; none where it is no such text."""
    import yaml

    data = yaml.safe_load(user_data)
    entries = data.get("write_files", ()) if isinstance(data, dict) else ()
    return {
        entry["path"]: base64.b64decode(entry["content"]) if entry.get("encoding") else entry["content"].encode()
        for entry in entries
    }

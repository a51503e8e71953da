"""Files in user data arrive byte for byte, whatever they hold, as cloud-init reads them."""

from __future__ import annotations

import base64
from typing import Any

import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from vcluster.stacks.userdata import File, write_files


def written(content: str | bytes) -> bytes:
    """What cloud-init would write: its module decodes ``content`` as ``encoding`` says."""
    # As in user data, where more follows: YAML takes a last line without its end for a text without one.
    text = f"write_files:\n{write_files([File('/etc/x', content)])}\nruncmd: []\n"
    entry: dict[str, Any] = yaml.safe_load(text)["write_files"][0]
    assert isinstance(entry["content"], str)
    return base64.b64decode(entry["content"]) if entry.get("encoding") == "b64" else entry["content"].encode()


@given(st.one_of(st.text(), st.binary(), st.text().map("{}\n".format)))
@example("0\n")
def test_every_content_arrives(content: str | bytes) -> None:
    raw = content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content
    if isinstance(content, str) and any("\ud800" <= c <= "\udfff" for c in content):
        return
    assert written(content) == raw


def test_an_empty_file_is_empty_and_not_null() -> None:
    assert written("") == b""

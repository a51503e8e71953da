"""A cluster's entries in a person's kubeconfig: all else stays, nobody else reads it, no half file is left."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from vcluster import kubeconfig_file
from vcluster.clouds.memory_k3s import KUBECONFIG
from vcluster.errors import PermanentError, TemporaryError, UsageError
from vcluster.kubeconfig import Kubeconfig, merged, taken

OWN = Kubeconfig("demo", "https://127.0.0.1:6443", "QVVUSA==", "Q0VSVA==", "U0VDUkVU", 6443)
OTHERS = """\
apiVersion: v1
kind: Config
preferences: {colors: true}
clusters:
- name: prod   # the real one
  cluster: {server: "https://prod.example.org", certificate-authority: /etc/ca.pem}
- cluster: {server: "https://old.example.org"}
  name: demo
contexts:
- {name: prod, context: {cluster: prod, user: "0123", namespace: 007}}
users:
- {name: "0123", user: {password: "007", username: yes}}
current-context: prod
"""


def lists(text: str) -> dict[str, list[Any]]:
    data = yaml.safe_load(text)
    return {key: data.get(key) or [] for key in ("clusters", "contexts", "users")}


def without(entries: list[Any], name: str) -> list[Any]:
    return [entry for entry in entries if entry["name"] != name]


# Pure ----------------------------------------------------------------------------------------------------------------


def test_k3s_file_means_this_from_here() -> None:
    own = taken(KUBECONFIG, "demo", "https://192.0.2.7:6443")
    data = yaml.safe_load(own.text)
    assert data["clusters"] == [
        {
            "name": "demo",
            "cluster": {
                "server": "https://192.0.2.7:6443",
                "tls-server-name": "head",
                "certificate-authority-data": "QVVUSE9SSVRZ",
            },
        }
    ]
    assert data["contexts"] == [{"name": "demo", "context": {"cluster": "demo", "user": "demo-admin"}}]
    assert [user["name"] for user in data["users"]] == ["demo-admin"]
    assert data["current-context"] == "demo"
    assert "default" not in own.text


@pytest.mark.parametrize("text", ["", "[]", "clusters: []", "clusters: [{cluster: {}}]", "a: [", "U0VDUkVU"])
def test_what_is_no_such_file_is_told_without_its_content(text: str) -> None:
    with pytest.raises(PermanentError, match="no kubeconfig as k3s writes it") as caught:
        taken(text, "demo", "https://127.0.0.1:6443")
    assert "U0VDUkVU" not in str(caught.value)


def test_a_key_is_in_no_repr() -> None:
    assert "U0VDUkVU" in OWN.text
    assert "U0VDUkVU" not in repr(OWN)


def test_other_entries_stay_as_they_are_written_and_older_ones_of_this_name_go() -> None:
    text = merged(OTHERS, OWN)
    before, after = lists(OTHERS), lists(text)
    assert [each["name"] for each in after["clusters"]] == ["prod", "demo"]
    assert after["clusters"][0] == before["clusters"][0]
    assert after["clusters"][1]["cluster"]["server"] == OWN.server
    assert after["contexts"][0] == before["contexts"][0]
    assert after["users"][0] == before["users"][0]
    # As written, not as YAML's types: a program that reads it sees the same word.
    assert "namespace: 007" in text
    assert "username: yes" in text
    assert yaml.safe_load(text)["preferences"] == {"colors": True}
    assert yaml.safe_load(text)["current-context"] == "prod"


def test_merged_twice_is_merged_once() -> None:
    once = merged(OTHERS, OWN)
    assert merged(once, OWN) == once
    assert merged(merged("", OWN), OWN) == merged("", OWN)


@pytest.mark.parametrize(
    ("before", "use", "after"),
    [
        ("", False, "demo"),
        ("kind: Config\n", False, "demo"),
        ("kind: Config\ncurrent-context: ''\n", False, "demo"),
        ("kind: Config\ncurrent-context:\n", False, "demo"),
        ("kind: Config\ncurrent-context: prod\n", False, "prod"),
        ("kind: Config\ncurrent-context: prod\n", True, "demo"),
    ],
)
def test_the_current_context_is_only_taken_where_there_is_none_or_it_was_asked_for(
    before: str, use: bool, after: str
) -> None:
    assert yaml.safe_load(merged(before, OWN, use=use))["current-context"] == after


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("just words", "it has no keys"),
        ("- a list", "it has no keys"),
        ("kind: Pod\napiVersion: v1\n", "kind is not Config"),
        ("apiVersion: v2\nclusters: []\n", "apiVersion is not v1"),
        ("kind: Config\nclusters: {a: b}\n", "clusters is no list"),
        ("kind: Config\nusers: [word]\n", "users is no list"),
        ("name: demo\ncloud: local\n", "none of its keys"),
        ("kind: Config\nkind: Config\n", "twice"),
        ("? [a]\n: b\nkind: Config\n", "twice, or is no word"),
        ("kind: Config\n---\nkind: Config\n", "not YAML"),
        ("key: U0VDUkVU\n  wrong: [", "not YAML, line 2"),
        ("\0", "not YAML"),
        ("[" * 3000, "not YAML"),
    ],
)
def test_another_programs_file_is_refused_without_its_content(text: str, why: str) -> None:
    with pytest.raises(UsageError, match=why) as caught:
        merged(text, OWN)
    assert "U0VDUkVU" not in str(caught.value)


def test_what_is_written_once_and_stands_twice_stays_in_the_other_place() -> None:
    text = "kind: Config\nclusters: &all [{name: prod, cluster: {server: x}}]\nextensions: *all\n"
    data = yaml.safe_load(merged(text, OWN))
    assert [each["name"] for each in data["clusters"]] == ["prod", "demo"]
    assert [each["name"] for each in data["extensions"]] == ["prod"]


_words = st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc")), max_size=30)
_values: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | _words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_words, inner, max_size=3),
    max_leaves=6,
)


def _entries(kind: str) -> Any:
    return st.lists(
        st.fixed_dictionaries({"name": _words, kind: st.dictionaries(_words, _values, max_size=4)}), max_size=5
    )


@given(
    clusters=_entries("cluster"),
    contexts=_entries("context"),
    users=_entries("user"),
    more=st.dictionaries(_words.filter(lambda w: w not in _KNOWN), _values, max_size=3),
    style=st.sampled_from([True, False, None]),
    own=st.sampled_from(["demo", "prod"]),
    use=st.booleans(),
)
def test_other_entries_survive_in_order_and_content(
    *, clusters: Any, contexts: Any, users: Any, more: Any, style: Any, own: str, use: bool
) -> None:
    clusters = [*clusters, {"name": "prod", "cluster": {"server": "https://prod"}}]
    before = {"kind": "Config", "clusters": clusters, "contexts": contexts, "users": users, **more}
    ours = Kubeconfig(own, "https://x:1", "YQ==", "Yg==", "Yw==")
    text = merged(yaml.safe_dump(before, default_flow_style=style, allow_unicode=True), ours, use=use)
    after = yaml.safe_load(text)
    for key, name in (("clusters", own), ("contexts", own), ("users", ours.user)):
        assert without(after[key], name) == without(before[key], name)
        assert [each for each in after[key] if each["name"] == name] == ours.entries()[key]
    assert {key: after[key] for key in more} == more


_KNOWN = {"kind", "apiVersion", "clusters", "contexts", "users", "current-context"}

# Files ---------------------------------------------------------------------------------------------------------------


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_where_it_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("KUBECONFIG", raising=False)
    assert kubeconfig_file.default_path() == tmp_path / ".kube/config"
    monkeypatch.setenv("KUBECONFIG", f":{tmp_path / 'a'}:{tmp_path / 'b'}")
    assert kubeconfig_file.default_path() == tmp_path / "a"
    assert kubeconfig_file.merge(OWN) == tmp_path / "a"
    assert left(tmp_path) == ["a"]


def test_a_file_and_its_folder_are_made_for_their_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / ".kube/config"
    kubeconfig_file.merge(OWN, path)
    assert (mode(path), mode(path.parent)) == (0o600, 0o700)
    assert yaml.safe_load(path.read_text())["current-context"] == "demo"
    assert left(path.parent) == ["config"]


def test_a_file_that_all_could_read_is_closed(tmp_path: Path) -> None:
    path = tmp_path / "config"
    path.write_text(OTHERS)
    path.chmod(0o644)
    kubeconfig_file.merge(OWN, path, use=True)
    assert mode(path) == 0o600
    assert yaml.safe_load(path.read_text())["current-context"] == "demo"


def test_a_link_stays_one_and_its_file_is_written(tmp_path: Path) -> None:
    real = tmp_path / "real"
    real.mkdir()
    (real / "config").write_text(OTHERS)
    link = tmp_path / "config"
    link.symlink_to("real/config")
    assert kubeconfig_file.merge(OWN, link) == real / "config"
    assert link.is_symlink()
    assert "demo-admin" in (real / "config").read_text()
    dangling = tmp_path / "dangling"
    dangling.symlink_to("real/new")
    assert kubeconfig_file.write(OWN, dangling) == real / "new"
    assert (dangling.is_symlink(), mode(real / "new")) == (True, 0o600)


def test_what_is_no_file_is_never_replaced(tmp_path: Path) -> None:
    circle = tmp_path / "circle"
    circle.symlink_to("circle")
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path in (tmp_path, pipe, circle):
        with pytest.raises((UsageError, PermanentError)):
            kubeconfig_file.merge(OWN, path)
        with pytest.raises((UsageError, PermanentError)):
            kubeconfig_file.write(OWN, path)
    assert pipe.is_fifo()
    assert left(tmp_path) == ["circle", "pipe"]


@pytest.mark.parametrize("content", [b"name: demo\ncloud: local\n", b"\xff\xfe not text", b"kind: Pod\n"])
def test_a_file_that_is_none_stays_untouched(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "config"
    path.write_bytes(content)
    for act in (kubeconfig_file.merge, kubeconfig_file.write):
        with pytest.raises(UsageError, match=f"{path} is no kubeconfig"):
            act(OWN, path)
    assert path.read_bytes() == content
    assert left(tmp_path) == ["config"]


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(PermanentError, match="cannot change"):
        kubeconfig_file.merge(OWN, tmp_path / "file/config")
    with pytest.raises(UsageError, match=r"there is no folder .*none") as caught:
        kubeconfig_file.write(OWN, tmp_path / "none/config")
    assert caught.value.remedy == "make it, or give another name"


def test_kubectl_at_work_is_waited_for_and_left_in_peace(tmp_path: Path) -> None:
    path, lock = tmp_path / "config", tmp_path / "config.lock"
    path.write_text(OTHERS)
    lock.touch()
    with pytest.raises(TemporaryError, match="another program is changing") as caught:
        kubeconfig_file.merge(OWN, path, timeout=0.0)
    assert str(lock) in caught.value.remedy
    assert (path.read_text(), lock.exists()) == (OTHERS, True)
    lock.unlink()
    kubeconfig_file.merge(OWN, path, timeout=0.0)
    assert left(tmp_path) == ["config"]


def test_many_merges_at_once_all_arrive(tmp_path: Path) -> None:
    path = tmp_path / "config"
    names = [f"c{n}" for n in range(12)]
    each = [Kubeconfig(name, "https://x:1", "YQ==", "Yg==", "Yw==") for name in names]
    threads = [
        threading.Thread(target=kubeconfig_file.merge, args=(own, path), kwargs={"timeout": 120.0}) for own in each
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(entry["name"] for entry in lists(path.read_text())["clusters"]) == sorted(names)
    assert left(tmp_path) == ["config"]

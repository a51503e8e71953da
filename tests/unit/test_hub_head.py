"""The head's own Hub programs: certificates, the address, how the Hub is, rehearsals, the command."""

from __future__ import annotations

import ipaddress
import json
import shutil
import ssl
import stat
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.x509.verification import PolicyBuilder, Store
from hub_head_kit import LIBRARY, TOKEN, Head, head

__all__ = ["head"]

URL = "https://198.51.100.7:40443/"


def tls(head: Head) -> Path:
    return head.root / "etc/vcluster/tls"


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_the_certificate_stands_what_a_browser_asks_of_it(head: Head) -> None:
    front = head.module("hub_front")
    assert front.leaf() is True
    assert front.leaf() is False
    front.front({"url": URL})
    chain = x509.load_pem_x509_certificates((tls(head) / "cert.pem").read_bytes())
    ca = x509.load_pem_x509_certificate((tls(head) / "ca.pem").read_bytes())
    for name in (x509.DNSName("head"), x509.IPAddress(ipaddress.ip_address("198.51.100.7"))):
        PolicyBuilder().store(Store([ca])).build_server_verifier(name).verify(chain[0], [])
    assert chain[1] == ca
    assert (chain[0].not_valid_after_utc - chain[0].not_valid_before_utc).days <= 397
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tls(head) / "cert.pem", tls(head) / "key.pem")
    assert mode(tls(head) / "ca-key.pem") == 0o600
    assert mode(tls(head) / "key.pem") == 0o640
    assert mode(tls(head)) == 0o750


def test_the_authority_stays_when_the_leaf_is_made_anew(head: Head) -> None:
    front = head.module("hub_front")
    front.leaf()
    first = front.authority()["fingerprint"]
    (tls(head) / "cert.pem").write_text("broken")
    assert front.leaf() is True
    assert front.authority()["fingerprint"] == first
    note = json.loads((tls(head) / "leaf.json").read_text())
    (tls(head) / "leaf.json").write_text(json.dumps({**note, "until": note["until"] - 370 * 86400}))
    assert front.leaf() is True
    (tls(head) / "ca-key.pem").unlink()
    assert front.leaf() is True
    assert front.authority()["fingerprint"] != first


def test_a_new_address_restarts_what_must_know_it_once(head: Head) -> None:
    front = head.module("hub_front")
    first = front.front({"url": URL})
    assert first["first"]
    assert first["ready"]
    assert first["url"] == URL
    assert first["ca"].startswith("-----BEGIN CERTIFICATE")
    assert first["fingerprint"].count(":") == 31
    assert head.called() == ["systemctl restart caddy.service", "systemctl restart jupyterhub.service"]
    head.module("hub_people").init()
    head.module("hub_passwords").password({})
    again = front.front({"url": URL})
    assert not again["first"]
    assert again["fingerprint"] == first["fingerprint"]
    assert len(head.called()) == 2
    front.front({"url": "https://198.51.100.7/"})  # another port: the certificate is good for it
    assert len(head.called()) == 3
    assert head.read("front.json") == {"url": "https://198.51.100.7/"}


def test_with_a_domain_nothing_is_signed_here(head: Head) -> None:
    head.facts(domain="hub.example.org")
    front = head.module("hub_front")
    assert front.leaf() is False
    told = front.front({"url": "https://hub.example.org/"})
    assert told["ca"] is None
    assert told["fingerprint"] is None
    assert told["first"]
    front.front({"url": "https://hub.example.org/"})
    assert head.called() == ["systemctl restart caddy.service"]  # which waited until the domain was looked up
    assert not tls(head).exists()


@pytest.mark.parametrize("url", ["", "http://a/", "https:///", "https://a/b", "https://u:p@a/", "https://a/?x", "a"])
def test_what_is_no_front_door_is_refused(head: Head, url: str) -> None:
    front = head.module("hub_front")
    with pytest.raises(front.Sorry, match="no address"):
        front.front({"url": url})
    assert head.called() == []


def test_status_counts_servers_and_room(head: Head) -> None:
    now = "2999-01-01T00:00:00.000000Z"
    head.hub.users = {
        "a": {"servers": {"": {"ready": True}}, "last_activity": now},
        "b": {"servers": {"": {"ready": True}}, "last_activity": "2020-01-01T00:00:00Z"},
        "c": {"servers": {"": {"ready": False}}, "last_activity": None},
        "d": {"servers": {}},
    }
    head.program("squeue", says="printf 'cpu-1\\ncpu-2\\n\\n'")
    told = head.module("hub_api").status()
    assert (told["hub"], told["version"], told["problem"]) == ("up", "6.1.1", "caddy.service does not answer")
    assert (told["active"], told["servers"], told["starting"], told["room"]) == (1, 2, 1, 5)


def test_room_is_where_jobs_are_taken_now_and_a_drained_worker_is_named(head: Head) -> None:
    workers = (
        "cpu-1|allocated|none\n"
        "cpu-2|draining|Kill task failed\n"
        "cpu-3|drained|vcluster: scaled down\n"
        "cpu-4|down*|Not responding\n"
        "other-1|idle|none\n"
        "cpu-5|mixed-|none"  # which the scheduler has planned something for
    )
    head.program("sinfo", says=f"cat <<'END'\n{workers}\nEND")
    head.program("squeue", says="printf 'cpu-1\\ncpu-2\\ncpu-2\\n\\n'")
    assert head.module("hub_api").room() == (6, 8, ["cpu-2 takes no more notebooks (Slurm: Kill task failed)"])
    assert f"squeue -h --name={head.module('hub_queue').JOB_NAME} -t PD,CF,R -o %N" in head.called()
    assert f'OURS = "{head.module("hub_api").OURS}"' in (LIBRARY.parent / "slurm/vcluster-node").read_text()


def test_a_slurm_that_is_silent_has_no_room(head: Head) -> None:
    head.program("sinfo", says="echo 'Unable to contact slurm controller' >&2; exit 1")
    module = rehearsing(head)
    with pytest.raises(module.Sorry, match="Unable to contact"):
        module.begin({"users": 1})
    told = head.module("hub_api").status()
    assert (told["hub"], told["room"]) == ("up", 0)


def test_a_hub_that_is_down_is_an_answer(head: Head) -> None:
    head.hub.up = False
    told = head.module("hub_api").status()
    assert told["hub"] == "down"
    assert "503" in told["problem"]
    assert told["room"] == 0


def test_a_provider_that_cannot_be_reached_is_told(head: Head) -> None:
    head.facts(auth={"method": "oidc", "options": {"issuer": "http://127.0.0.1:1/realm"}})
    found = head.module("hub_api").status()["provider"]
    assert found["host"] == "127.0.0.1"
    assert not found["reachable"]
    assert "refused" in found["problem"]
    head.facts(auth={"method": "oidc", "options": {"issuer": f"http://127.0.0.1:{head.hub.port}/"}})
    assert head.module("hub_api").status()["provider"]["reachable"]


def test_a_hub_that_could_not_start_says_why(head: Head) -> None:
    head.hub.port = 1
    head.facts(state="/var/lib/jupyterhub")
    api, front = head.module("hub_api"), head.module("hub_front")
    assert "refused" in api.status()["problem"]
    (head.root / "var/lib/jupyterhub").mkdir(parents=True)
    (head.root / "var/lib/jupyterhub/problem").write_text("nobody can log in:\nhttps://a.example: no answer")
    assert api.status()["problem"] == "the Hub does not answer: nobody can log in: https://a.example: no answer"
    front.leaf()
    front.HUB_SECONDS = 0
    with pytest.raises(front.Sorry, match="nobody can log in") as refusal:
        front.front({"url": "https://127.0.0.1:40443/"})
    assert refusal.value.temporary


def rehearsing(head: Head) -> Any:
    head.module("hub_people").init()
    head.module("hub_front").leaf()
    return head.module("hub_rehearsal")


def test_a_rehearsal_leaves_nothing_behind(head: Head) -> None:
    module = rehearsing(head)
    told = module.begin({"users": 3})
    assert told["users"] == ["rehearsal-001", "rehearsal-002", "rehearsal-003"]
    assert len(told["password"]) == 32
    assert head.read("passwords.json")["rehearsal"] == told["password"]
    assert (head.root / "home/.rehearsal/rehearsal-002").is_dir()
    passwd = head.root / "var/lib/extrausers/passwd"
    assert "rehearsal-003:*:60003:60003::/home/.rehearsal/rehearsal-003:/bin/bash" in passwd.read_text()
    head.hub.users = {name: {"servers": {"": {"ready": True}}} for name in told["users"]}
    with pytest.raises(module.Sorry, match="another rehearsal"):
        module.begin({"users": 1})
    assert module.end() == {"removed": 3, "problem": ""}
    assert passwd.read_text() == ""
    assert not list((head.root / "home/.rehearsal").iterdir())
    assert head.read("passwords.json")["rehearsal"] is None
    assert head.hub.users == {}
    ended = [line for line in head.called() if not line.startswith(("sinfo", "squeue"))]
    assert sorted(ended) == [
        "pkill --signal KILL --uid 60001,60002,60003",
        *(f"scancel --quiet --user={name}" for name in told["users"]),
    ]
    assert module.end() == {"removed": 0, "problem": ""}


def test_a_rehearsal_whose_computer_died_is_swept_by_the_next(head: Head) -> None:
    module = rehearsing(head)
    old = module.begin({"users": 3})["password"]
    known = head.read("people.json")
    head.write("people.json", {**known, "rehearsal": {"since": 1.0}})
    new = module.begin({"users": 2})
    assert new["password"] != old
    kinds = [entry["kind"] for entry in head.read("people.json")["people"].values()]
    assert kinds == ["rehearsal"] * 2


def test_a_rehearsal_takes_no_room_from_people(head: Head) -> None:
    module = rehearsing(head)
    head.hub.users = {name: {"servers": {"": {"ready": True}}} for name in "abcde"}
    head.program("squeue", says="printf 'cpu-1\\ncpu-1\\ncpu-1\\ncpu-2\\ncpu-2\\n'")
    with pytest.raises(module.Sorry, match=r"room for 3 more notebooks, not for 4"):
        module.begin({"users": 4})
    assert "rehearsal" not in json.dumps(head.read("people.json"))


def command(head: Head, *words: str, given: str = "") -> tuple[int, Any]:
    done = subprocess.run(
        [sys.executable, "-I", LIBRARY / "vcluster-hub", *words],
        input=given,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert TOKEN not in done.stdout + done.stderr
    assert done.stderr == ""
    return done.returncode, json.loads(done.stdout)


def test_the_command(head: Head) -> None:
    assert command(head, "people", "init") == (0, {"people": 0})
    assert command(head, "leaf") == (0, {"new": True})
    code, told = command(head, "front", given=json.dumps({"url": URL, "people": [{"name": "ann", "uid": 10001}]}))
    assert code == 0
    assert told["people"]["added"] == ["ann"]
    assert told["url"] == URL
    assert command(head, "people", "add", given='[{"name": "bob"}]') == (0, {"added": ["bob"]})
    code, told = command(head, "people", "list")
    assert [person["name"] for person in told["people"]] == ["ann", "bob"]
    assert command(head, "status")[1]["hub"] == "up"


@pytest.mark.parametrize(
    ("words", "given", "said"),
    [
        (["people", "add"], "{}", "must be a JSON list"),
        (["people", "add"], "nonsense", "no JSON"),
        (["people", "remove"], '["nobody"]', "not known here: nobody"),
        (["people"], "", "usage"),
        (["dance"], "", "usage"),
        (["people", "apply"], '[{"name": "ann"}]', "KeyError 'uid'"),
        (["rehearsal", "begin"], '{"users": 1000}', "1 to 999"),
    ],
)
def test_the_command_says_in_json_what_is_wrong(head: Head, words: list[str], given: str, said: str) -> None:
    head.module("hub_people").init()
    code, told = command(head, *words, given=given)
    assert code == 1
    assert said in told["error"]


def test_two_at_once_do_not_lose_each_others_people(head: Head) -> None:
    module = head.module("hub_people")
    module.init()
    threads = [threading.Thread(target=module.add, args=([{"name": f"p{n}"}],)) for n in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    people = head.read("people.json")["people"]
    assert sorted(entry["uid"] for entry in people.values()) == list(range(20001, 20013))


def test_a_worker_takes_the_heads_accounts(tmp_path: Path) -> None:
    text = (LIBRARY / "prolog").read_text()
    script = tmp_path / "prolog"
    script.write_text(text.replace("/home/", f"{tmp_path}/home/").replace("/var/lib", f"{tmp_path}/lib"))
    there, here = tmp_path / "home/.vcluster/extrausers", tmp_path / "lib/extrausers"

    def run() -> None:
        assert subprocess.run(["/bin/sh", script], check=False, timeout=60).returncode == 0

    run()  # the head's are not there yet: that is no failure, which would drain the worker
    assert not here.exists()
    there.mkdir(parents=True)
    for name in ("passwd", "group"):
        (there / name).write_text(f"{name} 1\n")
    run()
    assert (here / "passwd").read_text() == "passwd 1\n"
    assert mode(here / "group") == 0o644
    (there / "passwd").write_text("passwd 2\n")
    before = (here / "group").stat().st_ino
    run()
    assert (here / "passwd").read_text() == "passwd 2\n"
    assert (here / "group").stat().st_ino == before
    assert sorted(path.name for path in here.iterdir()) == ["group", "passwd"]
    shutil.rmtree(there)
    run()
    assert (here / "passwd").exists()

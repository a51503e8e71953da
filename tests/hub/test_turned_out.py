"""People are turned out while the Hub is away: what they run ends all the same, and the rest when it is back."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from tests.hub.bed import Bed
from tests.hub.person import person
from vcluster.hub import NewPerson

pytestmark = pytest.mark.hub


@pytest.fixture
def without_hub(bed: Bed) -> Iterator[Bed]:
    yield bed
    bed.head.run("systemctl", "start", "jupyterhub")
    bed._wait("the Hub", lambda: _up(bed))


def _up(bed: Bed) -> bool:
    with bed.hub() as hub:
        return hub.status().up


def test_what_was_left_of_somebody_is_done_by_the_same_command(without_hub: Bed) -> None:
    bed = without_hub
    with bed.hub() as hub:
        hub.add([NewPerson("leaver", keys=("ssh-ed25519 AAAA leaver",))])
    key = "/etc/vcluster/keys/leaver"
    assert bed.head.run("stat", "-c", "%U %a", key).stdout.split() == ["root", "644"]

    async def leave() -> None:
        async with person(bed.url, bed.ca, "leaver", bed.passwords()["class"]) as leaver:
            await leaver.start()
            # As a session by SSH leaves one.
            bed.head.run("runuser", "-u", "leaver", "--", "sh", "-c", "setsid sleep 1000 > /dev/null 2>&1 &")
            bed.head.run("systemctl", "stop", "jupyterhub")
            with bed.hub() as hub:
                gone = hub.remove(["leaver"])
            assert "the Hub does not answer" in gone.problem
            assert gone.before == ()

    asyncio.run(leave())
    bed._wait("the job to end", lambda: not bed.jobs())
    assert bed.head.run("pgrep", "--uid", "leaver", check=False).stdout == ""
    assert bed.head.run("test", "-e", key, check=False).returncode == 1
    # Until the Hub has heard of it, for the programs that are told by name.
    assert "notebooks" in bed.head.run("id", "leaver").stdout
    bed.head.run("systemctl", "start", "jupyterhub")
    bed._wait("the Hub", lambda: _up(bed))
    with bed.hub() as hub:
        again = hub.remove(["leaver"])
    assert (again.before, again.problem) == (("leaver",), "")
    assert bed.head.run("id", "leaver", check=False).returncode == 1


def test_a_rehearsal_ends_in_two_steps_when_the_hub_is_away(without_hub: Bed) -> None:
    bed = without_hub
    with bed.hub() as hub:
        hub.rehearsal_begin(2)
        bed.head.run("systemctl", "stop", "jupyterhub")
        assert "the Hub does not answer" in hub.rehearsal_end()
        bed.head.run("systemctl", "start", "jupyterhub")
        bed._wait("the Hub", lambda: _up(bed))
        assert hub.rehearsal_end() == ""
    assert bed.head.run("ls", "-A", "/home/.rehearsal").stdout == ""
    assert "rehearsal" not in bed.head.run("cat", "/var/lib/extrausers/passwd").stdout

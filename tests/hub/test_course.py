"""A course's material and its choice of profiles, and kernels of people's own."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.hub.bed import DEFAULT, Bed
from tests.hub.machine import END_WITH, INSIDE
from tests.hub.person import Person, student, until

pytestmark = pytest.mark.hub

ADDRESS, PORT = "10.77.0.1", 8088
SPEC: dict[str, Any] = {
    **DEFAULT,
    "jupyterhub": {
        **DEFAULT["jupyterhub"],
        "profiles": [
            {"name": "standard", "memory": "512M"},
            {"name": "large", "cpus": 2, "memory": "1G", "time": "2:00:00"},
        ],
        "repository": {"url": f"http://{ADDRESS}:{PORT}/course.git"},
    },
}
ME = ("-c", "user.name=Teacher", "-c", "user.email=teacher@example.org")


@pytest.fixture(scope="module")
def course_bed() -> Iterator[Bed]:
    with Bed(SPEC) as bed:
        yield bed


def git(*words: str) -> None:
    subprocess.run(["git", *ME, *words], check=True, capture_output=True)


class Course:
    """A teacher's working copy, and where the class gets it from."""

    def __init__(self, folder: Path) -> None:
        self.mine = folder / "mine"
        git("init", "--quiet", "--initial-branch=main", str(self.mine))
        git("init", "--quiet", "--bare", "--initial-branch=main", str(folder / "course.git"))
        git("-C", str(self.mine), "remote", "add", "origin", str(folder / "course.git"))

    def publish(self, **files: str) -> None:
        for name, text in files.items():
            (self.mine / f"{name}.txt").write_text(text)
        git("-C", str(self.mine), "add", ".")
        git("-C", str(self.mine), "commit", "--quiet", "--message=lesson")
        git("-C", str(self.mine), "push", "--quiet", "origin", "main")


@pytest.fixture
def course(course_bed: Bed, tmp_path: Path) -> Iterator[Course]:
    """Served inside the bed's network, which has no way out."""
    made = Course(tmp_path)
    serve = course_bed.hall.within([sys.executable, str(INSIDE / "git.py"), str(tmp_path), ADDRESS, str(PORT)])
    with subprocess.Popen([*END_WITH, *serve], stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        assert server.stdout.readline() == "ready\n"
        yield made
        server.kill()


def test_the_material_is_in_the_home_and_what_a_student_changed_stays(course_bed: Bed, course: Course) -> None:
    course.publish(first="What is a volcano?\n", answers="Yours:\n")
    home = "/home/student-001/course"

    def read(name: str) -> str:
        return course_bed.head.run("cat", f"{home}/{name}.txt", check=False).stdout

    async def day(name: str, text: str, change: str) -> None:
        async def there() -> bool:
            return read(name) == text

        async with student(course_bed, "student-001") as one:
            await until(f"{name} is in the home", there)
            async with one.cells() as cell:
                await cell(change)

    asyncio.run(day("first", "What is a volcano?\n", "open('course/answers.txt', 'w').write('A mountain.')"))
    assert read("answers") == "A mountain."
    course.publish(second="What is a glacier?\n", answers="Yours, please:\n", first="What is lava?\n")
    asyncio.run(day("second", "What is a glacier?\n", ""))
    assert (read("answers"), read("first")) == ("A mountain.", "What is lava?\n")
    owner = course_bed.head.run("stat", "-c", "%U", home, f"{home}/second.txt").stdout.split()
    assert owner == ["student-001", "student-001"]


def test_a_profile_says_what_the_job_may_have(course_bed: Bed) -> None:
    def limits(name: str) -> list[str]:
        return course_bed.head.run("squeue", "-h", f"--user={name}", "--format=%C %m %l").stdout.split()

    async def work() -> None:
        async with (
            student(course_bed, "student-002", profile="large"),
            student(course_bed, "student-003", profile="standard"),
        ):
            assert limits("student-002") == ["2", "1G", "2:00:00"]
            assert limits("student-003") == ["1", "512M", "8:00:00"]

    asyncio.run(work())


# An environment as `python -m venv` and `pip install ipykernel` make it, but for the download: ipykernel is a link.
ENVIRONMENT = """
set -e
cd
/opt/vcluster/user/bin/python -m venv --without-pip venvs/Mine
for site in "$HOME"/venvs/Mine/lib/python*/site-packages; do
  shared=/opt/vcluster/user/lib/$(basename "$(dirname "$site")")/site-packages
  ln -s "$shared/ipykernel" "$site/ipykernel"
  echo "$shared" > "$site/shared.pth"
done
"""
WHICH = "import json, sys; print(json.dumps([sys.prefix, sys.executable]))"


def test_a_kernel_of_ones_own_environment(course_bed: Bed) -> None:
    course_bed.head.run("runuser", "--login", "student-004", "--", "-c", ENVIRONMENT)
    found: dict[str, Any] = {}

    async def specs(one: Person) -> dict[str, Any]:
        answer = await one.browser.want("GET", f"{one.server}api/kernelspecs", 200, token=one.server)
        told: dict[str, Any] = answer.json()
        return told

    async def work() -> None:
        async with student(course_bed, "student-004") as one:
            told = await specs(one)
            found.update(told["kernelspecs"])
            assert told["default"] == "python3"
            path = f"{one.server}api/kernels"
            answer = await one.browser.want("POST", path, 201, token=one.server, data={"name": "env-mine"})
            shared, one.kernel = one.kernel, str(answer.json()["id"])
            async with one.cells() as cell:
                prefix, python = json.loads(await cell(WHICH))
            assert (prefix, python) == ("/home/student-004/venvs/Mine", "/home/student-004/venvs/Mine/bin/python")
            one.kernel = shared
            async with one.cells() as cell:
                assert json.loads(await cell(WHICH))[0] == "/opt/vcluster/user"

    asyncio.run(work())
    assert set(found) == {"python3", "env-mine"}
    assert found["env-mine"]["spec"]["display_name"] == "Mine (own environment)"

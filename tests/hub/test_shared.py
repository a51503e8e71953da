"""The folder that instructors share: what a teacher puts there the class reads, however it came there."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator

import pytest

from tests.hub.bed import Bed
from tests.hub.person import Person, person, student

pytestmark = pytest.mark.hub

WRITE = """
import os
os.makedirs("/srv/shared/week-1/data")
open("/srv/shared/week-1/data/cell.txt", "w").write("by a cell")
os.system("mkdir /srv/shared/shell && echo by a shell > /srv/shared/shell/shell.txt")
"""
READ = """
import json, os
found = {}
for folder, _, names in os.walk("/srv/shared"):
    for name in names:
        found[name] = open(os.path.join(folder, name)).read().strip()
    try:
        open(os.path.join(folder, "mine"), "w")
        found["mine"] = folder
    except OSError:
        pass
print(json.dumps(found))
"""
PRIVATE = "import os; open('mine.txt', 'w').close(); print(oct(os.stat('mine.txt').st_mode & 0o777))"


@pytest.fixture
def shared(bed: Bed) -> Iterator[Bed]:
    yield bed
    bed.head.run("sh", "-c", "rm -rf /srv/shared/*")


async def put(teacher: Person, path: str, what: dict[str, str]) -> None:
    """As JupyterLab's file browser does it."""
    path = f"{teacher.server}api/contents/shared/{path}"
    await teacher.browser.want("PUT", path, 200, 201, token=teacher.server, data=what)


def test_the_class_reads_what_a_teacher_writes_and_writes_nothing_there(shared: Bed) -> None:
    async def work() -> None:
        async with person(shared.url, shared.ca, "teacher", shared.passwords()["admin"]) as teacher:
            try:
                await teacher.start()
                async with teacher.cells() as cell:
                    assert (await cell(WRITE)).strip() == ""
                await put(teacher, "from-lab", {"type": "directory"})
                file = {"type": "file", "format": "text"}
                await put(teacher, "from-lab/lab.txt", {**file, "content": "by JupyterLab"})
                await put(teacher, "from-lab/lab.txt", {**file, "content": "by JupyterLab, again"})
            finally:
                await teacher.leave()
        async with student(shared, "student-001") as one, one.cells() as cell:
            assert json.loads(await cell(READ)) == {
                "cell.txt": "by a cell",
                "shell.txt": "by a shell",
                "lab.txt": "by JupyterLab, again",
            }
            assert (await cell(PRIVATE)).strip() == "0o600"

    asyncio.run(work())
    modes = shared.head.run("stat", "-c", "%a %G", "/srv/shared/week-1/data", "/srv/shared/from-lab/lab.txt").stdout
    assert modes.splitlines() == ["2775 instructors", "664 instructors"]

"""Notebooks' jobs as Slurm knows them: one squeue for all of them, however many ask."""

import asyncio
import re
import time
from dataclasses import dataclass

JOB_NAME = "jupyter-vcluster"
"""How the helper calls a notebook's job, and no job of a user's own by chance."""

FIELDS = "%A|%T|%N|%u|%r"
"""Number, state, node, user, reason. Nothing that a user writes, which could hold what looks like another's row (a
name, a comment, a folder), and no ``%i``, which is no number where a user says that there shall be an array.
"""

ROW = re.compile(r"([0-9]{1,10})\|([A-Z_]+)\|([^|]*)\|([^|]+)\|(.*)")
SECONDS = 20
GOING = ("PENDING", "CONFIGURING", "RUNNING", "SUSPENDED", "REQUEUED", "RESIZING", "SIGNALING", "STAGE_OUT", "STOPPED")
"""States of a job that is not over; one that completes is."""


@dataclass(frozen=True)
class Job:
    """A notebook's job that is not over."""

    state: str
    node: str
    reason: str
    user: str


class Queue:
    """Asks squeue when the last answer is too old. ``jobs`` is the last good answer, asked for at ``asked``."""

    def __init__(self, command, log):
        self._command = [*command, "--noheader", f"--name={JOB_NAME}", f"--format={FIELDS}"]
        self._log = log
        self._lock = asyncio.Lock()
        self._tried = 0.0
        self.asked = 0.0
        self.jobs = {}

    async def look(self, age, since=0.0):
        """All jobs by number, from an answer at most ``age`` seconds old and asked for after ``since``; or None.

        None means that Slurm did not say, which means nothing for the jobs.
        """
        async with self._lock:
            now = time.monotonic()
            if self.asked <= since or now - self.asked > age:
                # What did not answer is not asked by everybody in turn.
                if now - self._tried < min(age, 1.0):
                    return None
                self._tried = now
                jobs = await self._ask()
                if jobs is None:
                    return None
                self.asked, self.jobs = now, jobs
            return self.jobs

    async def _ask(self):
        try:
            process = await asyncio.create_subprocess_exec(
                *self._command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
            )
        except OSError as error:
            self._log.warning("squeue cannot be run: %s", error)
            return None
        try:
            out, err = await asyncio.wait_for(process.communicate(), SECONDS)
        except TimeoutError:
            process.kill()
            await process.wait()
            self._log.warning("squeue did not answer in %d seconds", SECONDS)
            return None
        if process.returncode:
            self._log.warning("squeue: %s", err.decode(errors="replace").strip()[-300:])
            return None
        return parse(out.decode(errors="replace"))


def parse(text):
    """The jobs in what squeue wrote; None when it is something else.

    A line that is no row says nothing of any job, and the rows beside it hold: whoever could bring one such line about
    would otherwise hold up everybody.
    """
    lines = [line for line in text.split("\n") if line.strip()]
    rows = [row for row in map(ROW.fullmatch, lines) if row]
    if lines and not rows:
        return None
    jobs = {}
    for number, state, node, user, reason in (row.groups() for row in rows):
        if state in GOING:
            jobs[int(number)] = Job(state, node if state != "PENDING" else "", reason, user)
    return jobs

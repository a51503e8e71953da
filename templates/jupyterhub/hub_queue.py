"""Notebooks' jobs as Slurm knows them: one squeue for all of them, however many ask."""

import asyncio
import time
from dataclasses import dataclass

JOB_NAME = "jupyter"
SECONDS = 20
GOING = ("PENDING", "CONFIGURING", "RUNNING", "SUSPENDED", "REQUEUED", "RESIZING", "SIGNALING", "STAGE_OUT", "STOPPED")
"""States of a job that is not over; one that completes is."""


@dataclass(frozen=True)
class Job:
    """A job that is not over. ``ours`` when the Hub's helper submitted it."""

    state: str
    node: str
    reason: str
    user: str
    ours: bool


class Queue:
    """Asks squeue when the last answer is too old. ``jobs`` is the last good answer, asked for at ``asked``."""

    def __init__(self, command, log):
        self._command = [*command, "--noheader", f"--name={JOB_NAME}", "--format=%i|%T|%B|%r|%u|%k"]
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
    """The jobs in what squeue wrote; None when it is something else."""
    jobs = {}
    for line in text.splitlines():
        cells = line.split("|")
        if len(cells) != 6 or not cells[0].isdigit():
            return None
        number, state, node, reason, user, comment = cells
        if state in GOING:
            node = node if state != "PENDING" else ""
            jobs[int(number)] = Job(state, node, reason, user, comment == "vcluster")
    return jobs

"""A notebook server is a Slurm job of its user's.

batchspawner's ways to talk with jobs are not used. Its API handler sets any attribute of the spawner to what a
notebook posts, commands among them, so it is taken away; a notebook may tell us one number, its port. Its polling
starts two processes each half second for each server; here one squeue answers for all (hub_queue.py). Jobs are
submitted and cancelled by a helper of root's that takes a user's name and little else (vcluster-notebook).
"""

import asyncio
import contextlib
import html
import json
import time
from hmac import compare_digest

import batchspawner
from hub_queue import Queue
from jupyterhub import orm
from jupyterhub.apihandlers import APIHandler, default_handlers
from jupyterhub.spawner import Spawner, SpawnException
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import object_session
from tornado import web
from traitlets import Dict

HOLE = "/api/batchspawner"
default_handlers[:] = [entry for entry in default_handlers if not entry[0].startswith(HOLE)]

HELPER_SECONDS = 120
HELPERS_AT_ONCE = 8
END_SECONDS = 30
LOOK_STARTING = 2.0
LOOK_RUNNING = 15.0
ORPHANS_EVERY = 150.0
LOG_IN_HOME = "~/.local/state/vcluster/notebook.log"


class Port(APIHandler):
    """``POST /hub/api/vcluster/port`` with ``{"port": N}``: a starting server tells where it listens, once."""

    @web.authenticated
    def post(self):
        body = self.get_json_body()
        port = body.get("port") if isinstance(body, dict) else None
        if type(port) is not int or not 1024 <= port <= 65535:
            raise web.HTTPError(400, "a port is a number from 1024 to 65535")
        token = self.get_auth_token() or ""
        for spawner in getattr(self.current_user, "spawners", {}).values():
            known = spawner.api_token or ""
            if known and compare_digest(known.encode(), token.encode()):
                break
        else:
            raise web.HTTPError(404, "no server is starting with this token")
        if not isinstance(spawner, NotebookSpawner) or not spawner.told(port):
            raise web.HTTPError(409, "this server is not waited for")
        self.set_status(204)


default_handlers.append((r"/api/vcluster/port", Port))


class Shared:
    """What all spawners of a Hub share."""

    queue = None
    helpers = None

    @classmethod
    def ready(cls, hub, log):
        """Made by whoever needs it first, in the Hub's loop."""
        if cls.queue is None:
            cls.queue, cls.helpers = Queue(hub["squeue"], log), asyncio.Semaphore(HELPERS_AT_ONCE)


class NotebookSpawner(batchspawner.SlurmSpawner):
    """See above."""

    cluster = Dict(config=True, help="Facts of the cluster: hub.json")

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self._arrived = asyncio.Event()
        self._waiting = False
        self._port = 0
        self._submitted = 0.0
        self._word = ""
        Shared.ready(self.cluster, self.log)

    # -- what people choose --------------------------------------------------------------------------------------

    def _options_form_default(self):
        profiles = self.cluster["profiles"]
        return form(profiles) if len(profiles) > 1 else ""

    def options_from_form(self, formdata):
        return {"profile": (formdata.get("profile") or [""])[0]}

    @property
    def profile(self):
        """The profile that was chosen, or the first; whatever else was posted says nothing."""
        wanted = self.user_options.get("profile")
        profiles = {each["name"]: each for each in self.cluster["profiles"]}
        return profiles.get(wanted if isinstance(wanted, str) else "") or self.cluster["profiles"][0]

    # -- a server's life -----------------------------------------------------------------------------------------

    def told(self, port):
        """The server says where it listens. Whether that is so; it may say it again, as an answer can get lost."""
        if self._arrived.is_set() or not self._waiting:
            return port == self._port
        self._port = port
        self._arrived.set()
        return True

    async def start(self):
        self._arrived.clear()
        self._port = 0
        self._word = "Asking Slurm for a job"
        self._waiting = True
        try:
            answer = await self._help(do="submit", profile=self.profile["name"], environment=self._environment())
            self.job_id = str(answer["job"])
            self._submitted = time.monotonic()
            # At once: a Hub that is killed now finds the job again.
            self.orm_spawner.state = self.get_state()
            object_session(self.orm_spawner).commit()
            node = await self._running()
        finally:
            self._waiting = False
        self._word = f"JupyterLab runs on {node}"
        self.log.info("%s: job %s runs on %s", self._log_name, self.job_id, node)
        return f"http://{self.cluster['nodes'][node]}:{self._port}"

    async def _running(self):
        """The node's name, once the server there told its port."""
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._arrived.wait(), LOOK_STARTING)
            jobs = await Shared.queue.look(LOOK_STARTING, self._submitted)
            if jobs is None:
                await asyncio.sleep(0.5)
                continue
            job = self._job(jobs)
            if job is None:
                number, self.job_id = self.job_id, ""
                raise SpawnException(
                    f"Job {number} ended before the server was up. Its last words may be in {LOG_IN_HOME}.",
                    reason="job-ended",
                )
            self._word = word(job)
            if self._arrived.is_set() and job.node:
                if job.node not in self.cluster["nodes"]:
                    raise SpawnException(f"Slurm ran the job on {job.node}, which is no worker of this cluster")
                return job.node
            # Nothing above waits once the port is there and what is known of the queue is older.
            await asyncio.sleep(0.2)

    def _job(self, jobs):
        """This server's job among those that are not over, or None.

        One of its number that is somebody else's is not it: a Slurm that lost its memory counts anew.
        """
        job = jobs.get(int(self.job_id))
        return job if job and job.user == self.user.name else None

    async def poll(self):
        if not self.job_id:
            return 1
        jobs = await Shared.queue.look(LOOK_RUNNING, self._submitted)
        if jobs is None:
            return None
        job = self._job(jobs)
        if job and job.state != "PENDING":
            return None
        # Slurm queues a job again that it was launching as the node died, whatever --no-requeue says.
        number, self.job_id = int(self.job_id), ""
        with contextlib.suppress(SpawnException):  # watch() tries again
            await self._help(do="cancel", job=number)
        return 0

    async def stop(self, now=False):
        if not self.job_id:
            return
        await self._help(do="cancel", job=int(self.job_id))
        if now:
            return
        asked = time.monotonic()
        while time.monotonic() - asked < END_SECONDS:
            jobs = await Shared.queue.look(1.0, asked)
            if jobs is not None and not self._job(jobs):
                return
            await asyncio.sleep(1.0)

    async def progress(self):
        last = ""
        while self._waiting:
            if self._word != last:
                last = self._word
                yield {"progress": 60 if self._arrived.is_set() else 30, "message": last}
            await asyncio.sleep(2.0)

    # -- the helper ----------------------------------------------------------------------------------------------

    def _environment(self):
        """Of the environment only what a notebook server needs; the helper looks again."""
        # Not batchspawner's, which asks the system for the user's home: the job knows that itself.
        environment = {key: str(value) for key, value in Spawner.get_env(self).items() if key.startswith("JUPYTERHUB_")}
        environment["VCLUSTER_KERNEL_IDLE"] = str(self.cluster["idle"]["kernel"])
        if self.cluster["repository"].get("url"):
            environment["VCLUSTER_REPOSITORY"] = json.dumps(self.cluster["repository"])
        return environment

    async def _help(self, **request):
        async with Shared.helpers:
            return await ask_helper(self.cluster["helper"], {"user": self.user.name, **request})


def word(job):
    """What to tell somebody who waits for a job."""
    if job.state == "PENDING":
        reason = "" if job.reason in ("None", "") else f": {job.reason}"
        return f"Waiting in the queue{reason}"
    return f"Starting on {job.node}" if job.node else "Starting"


def form(profiles):
    """The choice of profiles as HTML."""
    lines = []
    for number, each in enumerate(profiles):
        gpus = f"{each['gpus']} GPU, " if each.get("gpus") else ""
        size = f"{each['cpus']} CPU, {gpus}{each['memory_mib'] / 1024:g} GiB, {each['time']}"
        text = " – ".join(part for part in (each["name"], each["description"], size) if part)
        chosen = " selected" if number == 0 else ""
        lines.append(f'<option value="{html.escape(each["name"])}"{chosen}>{html.escape(text)}</option>')
    options = "\n".join(lines)
    return (
        '<label for="profile">What your notebooks get</label>\n'
        f'<select class="form-control" id="profile" name="profile">\n{options}\n</select>'
    )


async def ask_helper(command, request):
    """The answer of root's helper.

    Raises:
        SpawnException: it refused, or did not answer; the message is for the user.
    """
    process = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
    )
    try:
        out, _ = await asyncio.wait_for(process.communicate(json.dumps(request).encode()), HELPER_SECONDS)
        answer = json.loads(out)
    except TimeoutError:
        raise SpawnException("Slurm does not answer. Try again in a minute.", reason="slurm-silent") from None
    except ValueError:
        answer = {"error": f"the helper ended with {process.returncode}"}
    if "error" in answer:
        raise SpawnException(f"Slurm: {answer['error']}", reason="slurm-refused")
    return answer


async def watch(app, hub):
    """Cancel, for as long as the Hub runs, jobs of which it does not know: each was seen twice, minutes apart."""
    Shared.ready(hub, app.log)
    suspects = set()
    while True:
        await asyncio.sleep(ORPHANS_EVERY)
        jobs = await Shared.queue.look(LOOK_STARTING)
        if jobs is None:
            continue
        try:
            states = [row.state for row in app.db.query(orm.Spawner) if row.state]
        except SQLAlchemyError as error:  # a disk that is full, for now
            app.log.warning("The database does not answer: %s", error)
            continue
        known = {str(state.get("job_id")) for state in states}
        strangers = {number: job for number, job in jobs.items() if str(number) not in known}
        for number in suspects & set(strangers):
            app.log.warning("Job %s of %s belongs to no server; it is cancelled", number, strangers[number].user)
            try:
                await ask_helper(hub["helper"], {"do": "cancel", "user": strangers[number].user, "job": number})
            except SpawnException as error:
                app.log.warning("Job %s: %s", number, error)
        suspects = set(strangers)

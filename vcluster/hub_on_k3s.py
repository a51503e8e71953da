"""The Hub of a cluster on k3s, as the launcher has to do with it: its manifests on the head, whether it runs, its door.

There is no ``vcluster-hub`` on such a head: people are the spec's, and ``up`` brings them in.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from vcluster.access import Access, clock_of
from vcluster.doors import url_of
from vcluster.errors import CancelledError, DeadlineError, PermanentError, SpecError, TemporaryError, UsageError
from vcluster.frontdoor import check_domain
from vcluster.hub import HubDoor, HubPasswords
from vcluster.model import CommandResult, Endpoint, Observed
from vcluster.plan import chosen_network, chosen_ports
from vcluster.spec_hub_cross import PROVIDERS
from vcluster.spec_secrets import SpecSecrets
from vcluster.stacks import zero_to_jupyterhub as chart
from vcluster.stacks.base import Simulated, Site
from vcluster.stacks.hub_certificate import fingerprint, front_authority
from vcluster.stacks.jupyterhub import passwords

if TYPE_CHECKING:
    from vcluster.spec import ClusterSpec
    from vcluster.stacks.userdata import File

__all__ = ["ChartAccess", "Tell"]

Tell = Callable[[str, str, float], CommandResult]
"""Runs a command line on the head with a standard input, for so many seconds at most."""

INSTALLING, FAILED = "pending-install", "failed"
"""What helm calls them."""
KUBECTL = "sudo -n /usr/local/bin/k3s kubectl"
READY = f"{KUBECTL} -n {chart.NAMESPACE} wait --for=condition=Available --timeout=20s deployment/hub deployment/proxy"
_OURS = f"-n {chart.NAMESPACE} %s secret -l owner=helm,name={chart.RELEASE}"
_REVISION = r'{range .items[*]}{.metadata.labels.version} {.metadata.labels.status}{"\n"}{end}'
RECORDS = f"{KUBECTL} {_OURS % 'get'} -o jsonpath='{_REVISION}'"
"""How each revision stands that helm has a record of. The HelmChart says of a failure only after a thousand tries."""
_FORGET = f"{_OURS % 'delete'},status={FAILED}"
FORGET = f"{KUBECTL} {_FORGET}"
LOOK_EVERY = 5.0
SECONDS = 60.0
ANEW_SECONDS = 300.0
"""So long after ``up`` came, an install that failed is one of before, or was ended by what ``up`` changed: k3s looks at
manifests every 15 s, helm has 30 s to end, and the next job must start to see what is left. One of its own takes longer
to fail: it has half an hour."""


class ChartAccess(Access):
    """The part of :class:`vcluster.cluster.Cluster` that is about the chart's Hub."""

    @contextmanager
    def _head(self, endpoint: Endpoint) -> Iterator[Tell]:
        """Commands over one connection to the head."""
        if isinstance(self.cloud, Simulated):
            cloud = self.cloud
            yield lambda command, stdin, _timeout: cloud.execute(self.ref, command, stdin=stdin)
            return
        with self._remote(endpoint) as remote:
            yield lambda command, stdin, timeout: remote.run(command, stdin=stdin, timeout=timeout)

    def _chart_spec(self) -> ClusterSpec | None:
        """The spec of a cluster whose Hub is the chart's; None for all others."""
        spec = self.folder.read_spec()
        return spec if spec is not None and spec.scheduler == "k3s" and spec.jupyterhub is not None else None

    def _refuse_chart(self) -> None:
        """Refuse what only a Slurm head's own program can do.

        Raises:
            UsageError: the Hub is the chart's.
        """
        if self._chart_spec() is not None:
            raise UsageError(
                f"the Hub of {self.name!r} is Kubernetes' own: neither `users` nor `rehearse` reaches it",
                remedy="who may come is in the spec: change it, and `vcluster up` again; the Hub's admin page shows "
                "who is there; a password of a class is for a new cluster's spec to name",
            )

    def _chart_passwords(self, spec: ClusterSpec) -> HubPasswords:
        """What people type, from the cluster's secret and what the spec names.

        Raises:
            SpecError: a secret that the spec names cannot be found.
        """
        assert spec.jupyterhub is not None
        method = spec.jupyterhub.auth.method
        words = passwords(self._site(spec, self._observe()))
        shared = words["class"] if method == "shared-password" else ""
        return HubPasswords(method, shared or "", "" if method in PROVIDERS else words["admin"] or "")

    def _open_chart_door(
        self, spec: ClusterSpec, endpoint: Endpoint, web: Endpoint, cancel: threading.Event, end: float
    ) -> HubDoor:
        """Have the head know its address and the spec's people, and wait until the Hub and its proxy run.

        Raises:
            SpecError: the domain does not point at the head, or a Hub that was never begun lacks a secret.
            CloudError: the head did not answer, or the chart could not be installed.
            DeadlineError: time was up before.
            CancelledError: ``cancel`` was set.
        """
        check_domain(spec, web.host)
        url, site = url_of(spec, web), self._site(spec, self._observe())
        words = None
        with self._head(endpoint) as tell:
            try:
                if changed := [file for file in chart.files(site, url) if not _lies(tell, file)]:
                    if any(file.path in chart.INPUTS for file in changed):
                        self._await_install(tell, cancel, end)
                    _put(tell, changed)
                    self._log("the Hub's manifests on the head are new: Kubernetes brings the Hub to that")
                words = self._chart_passwords(spec)
            except SpecError as error:  # it runs with the secrets that it has
                if not _content(tell, chart.CHART_FILE):
                    raise
                self._log(f"the Hub stays as it is, a secret is not here: {error}", level="warning")
            self._await_chart(tell, cancel, end)
        authority = "" if spec.jupyterhub and spec.jupyterhub.domain else front_authority(site.keyring).certificate
        seal = fingerprint(authority) if authority else ""
        return HubDoor(url, seal, authority, passwords=words)

    def _site(self, spec: ClusterSpec, observed: Observed) -> Site:
        network = chosen_network(observed)
        if network is None:
            raise TemporaryError(f"the network of {self.name} is not seen")
        ports, keyring = chosen_ports(observed), self.folder.keyring()
        slots = tuple(slot for slot in spec.slots(self.cloud.flavor))
        return Site(self.ref, spec, network, slots, ports, keyring, self.cloud.guarded, SpecSecrets(spec), founded=True)

    def _await_install(self, tell: Tell, cancel: threading.Event, end: float) -> None:
        """Wait until helm is not at the first install: what is changed then ends it, and k3s does not begin it anew.

        An upgrade that is ended so it does begin anew.

        Raises:
            DeadlineError: time was up before.
            CancelledError: ``cancel`` was set.
        """
        told = False
        while (answer := tell(RECORDS, "", SECONDS)).exit_code or INSTALLING in _statuses(answer):
            if not told:
                self._log("Kubernetes installs the Hub as it was before: what is new comes after that")
                told = True
            self._pause(
                cancel, end, _last(answer) if answer.exit_code else "Kubernetes still installs the one of before"
            )

    def _await_chart(self, tell: Tell, cancel: threading.Event, end: float) -> None:
        """Wait until the Hub and its proxy run.

        Raises:
            PermanentError: the chart could not be installed.
            DeadlineError: time was up before.
            CancelledError: ``cancel`` was set.
        """
        clock, told = clock_of(self.cloud), False
        early = clock.now() + ANEW_SECONDS
        while (answer := tell(READY, "", SECONDS)).exit_code:
            if not told:
                self._log("the Hub is on its way: every worker gets the notebooks' image first")
                told = True
            if _has_failed(records := _statuses(tell(RECORDS, "", SECONDS))):
                # Nothing is tried again: what there is stays as it is (failurePolicy).
                never = set(records) == {FAILED}
                if not never or clock.now() >= early or tell(FORGET, "", SECONDS).exit_code:
                    remedy = self._look("" if never and clock.now() >= early else _FORGET)
                    raise PermanentError("Kubernetes could not install the Hub", remedy=remedy)
                # There is nothing to keep, and without the record the job that waits for somebody installs it.
                self._log("the Hub's install failed or was interrupted before it ever ran: Kubernetes begins it anew")
            self._pause(cancel, end, _last(answer))
        if _has_failed(_statuses(tell(RECORDS, "", SECONDS))):
            why = "Kubernetes failed to bring it to what the spec says"
            self._log(f"the Hub runs as it was: {why}; {self._look(_FORGET)}", level="warning")

    def _pause(self, cancel: threading.Event, end: float, why: str) -> None:
        """Until the next look.

        Raises:
            DeadlineError: time is up.
            CancelledError: ``cancel`` was set.
        """
        clock = clock_of(self.cloud)
        if clock.now() >= end:
            raise DeadlineError(f"time is up: the Hub does not run yet: {why}", remedy=self._look())
        clock.sleep(LOOK_EVERY, cancel)
        if cancel.is_set():
            raise CancelledError("interrupted before the Hub ran")

    def _look(self, before: str = "") -> str:
        """Where more is told, and what to do; ``before`` is what kubectl has to do first."""
        kubectl = f"vcluster ssh {self.name} -- sudo k3s kubectl"
        first = f"; before that `{kubectl} {before}` has Kubernetes try again" if before else ""
        return (
            f"`{kubectl} -n {chart.SYSTEM} logs job/helm-install-{chart.RELEASE}` says more, and `{kubectl} "
            f"-n {chart.NAMESPACE} get pods`; then `vcluster up` again{first}"
        )


def _statuses(answer: CommandResult) -> list[str]:
    """How helm's revisions stand, in their order, which is not the one in which kubectl lists their names."""
    rows = re.findall(r"^(\d+) (\S+)$", answer.stdout, flags=re.MULTILINE)
    return [status for _, status in sorted((int(version), status) for version, status in rows)]


def _has_failed(statuses: Sequence[str]) -> bool:
    """Whether the last revision did; one that failed before a better one stays in helm's history."""
    return statuses[-1:] == [FAILED]


def _last(answer: CommandResult) -> str:
    return (answer.stderr.strip().splitlines() or ["no reason given"])[-1]


def _content(tell: Tell, path: str) -> str:
    """Of a file on the head; empty where there is none."""
    return tell(f"sudo -n cat {path}", "", SECONDS).stdout


def _lies(tell: Tell, file: File) -> bool:
    return _content(tell, file.path) == file.content


def _put(tell: Tell, files: Sequence[File]) -> None:
    """Put manifests on the head, each whole or not at all.

    k3s looks at them every few seconds and applies what is new. Drafts have a name that it leaves alone.

    Raises:
        TemporaryError: the head did not keep one.
    """
    for file in files:
        text = file.content if isinstance(file.content, str) else file.content.decode()
        draft = f"{file.path}.new"
        done = tell(f"sudo -n sh -c 'umask 077; cat > {draft} && mv {draft} {file.path}'", text, SECONDS)
        if done.exit_code:
            raise TemporaryError(f"the head did not keep {file.path}: {(done.stderr or 'no reason').strip()[-200:]}")

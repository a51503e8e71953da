"""The way in: credentials by the SDK alone (clouds.yaml, openrc, ``OS_*``, application credentials), and who asks.

Nothing is asked of the cloud before it is needed; ``import openstack`` takes a second and happens here only.
"""

from __future__ import annotations

import dataclasses
import difflib
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from vcluster.clouds.openstack import errors, rules
from vcluster.clouds.openstack.rest import TIMEOUT, Clock, Service, repeated
from vcluster.errors import CancelledError, CloudError, PermanentError, UsageError, VclusterError

if TYPE_CHECKING:
    from keystoneauth1.access import AccessInfo
    from openstack.connection import Connection
    from openstack.proxy import Proxy

__all__ = ["ENVIRONMENT", "THREADS", "Identity", "Services", "connect"]

ENVIRONMENT = "envvars"
"""The SDK's name for the cloud that ``OS_*`` variables describe."""

FROM_ENVIRONMENT = ("openstack", ENVIRONMENT)
"""What a spec may call it. Horizon's clouds.yaml, ready for download, has an entry `openstack`: that goes first."""

GET_ONE = (
    "get one from your cloud's dashboard (API access, or with a new application credential) and put it at "
    "~/.config/openstack/clouds.yaml; docs/how-to/openstack.md says more"
)
"""For who has no entry of clouds.yaml yet."""

THREADS = 24
"""How many requests are under way at once, beside those of the loop's own threads."""

CONNECTIONS = 64
"""How many stay open between calls: more than all threads together ever use."""

LOGIN_TIMEOUT = 12.0
"""Seconds without a byte until Keystone counts as not answering. A log-in that waits most often has a wrong address."""

LOGIN_TRIES = 6
"""How often a log-in is tried, where the tries fail at once."""

LOGIN_PATIENCE = 30.0
"""Seconds after which no further try begins. One try may be two requests: for Keystone's versions, and for a token."""

COMPUTE_VERSION = "2.52"
"""Tags in the create call (Nova 16.1, 2017); the flavor's name within the server came with 2.47."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Who asks, where."""

    user: str
    user_name: str
    project: str
    project_name: str
    region: str
    cloud: str

    def __str__(self) -> str:
        region = f", region {self.region}" if self.region else ""
        return f"project {self.project_name} ({self.project}){region}, as {self.user_name}, by cloud `{self.cloud}`"


class Services:
    """The services of one cloud, as one user in one project.

    Args:
        connection: the SDK's.
        cloud: its name, for messages.
        entry: where the user wrote the credential.
    """

    def __init__(self, connection: Connection, cloud: str, entry: errors.Entry) -> None:
        self._connection = connection
        self._entry = entry
        self._cloud = cloud
        self._stopped = threading.Event()
        self._sleep: Callable[[float], None] = self._pause
        self._lock = threading.Lock()
        self._identity: Identity | None = None
        self._rules: Sequence[Mapping[str, str]] | None = None
        self._volumes: bool | None = None
        self._balancers: bool | None = None
        self.clock = Clock()
        proxies: dict[str, Callable[[], Proxy]] = {
            "compute": lambda: connection.compute,
            "network": lambda: connection.network,
            "image": lambda: connection.image,
            "block_storage": lambda: connection.block_storage,
            "load_balancer": lambda: connection.load_balancer,
        }
        # One after the other: the SDK makes these adapters without a lock.
        making = threading.Lock()

        def guarded(make: Callable[[], Proxy]) -> Proxy:
            with making:
                return make()

        self.compute = Service("Nova", partial(guarded, proxies["compute"]), self.clock, COMPUTE_VERSION, self._pause)
        self.network = Service("Neutron", partial(guarded, proxies["network"]), self.clock, sleep=self._pause)
        self.image = Service("Glance", partial(guarded, proxies["image"]), self.clock, sleep=self._pause)
        self.volume = Service("Cinder", partial(guarded, proxies["block_storage"]), self.clock, sleep=self._pause)
        self.balancer = Service("Octavia", partial(guarded, proxies["load_balancer"]), self.clock, sleep=self._pause)

    @property
    def identity(self) -> Identity:
        """Who asks; gets a token when there is none yet.

        Raises:
            PermanentError: the credential is refused, or is for no project.
            TemporaryError: Keystone does not answer.
        """
        with self._lock:
            if self._identity is None:
                self._identity = self._authenticate()
            return self._identity

    @property
    def has_volumes(self) -> bool:
        """Whether there is a Cinder."""
        if self._volumes is None:
            self._volumes = self._has("block-storage")
        return self._volumes

    @property
    def has_balancers(self) -> bool:
        """Whether there is an Octavia, and the credential's access rules, if it has any, let it be asked."""
        if self._balancers is None:
            there = self._has("load-balancer") and bool(self.identity)  # the rules come with the token
            self._balancers = there and (self._rules is None or rules.allow(self._rules, "load-balancer", "GET"))
        return self._balancers

    def check_may_change(self) -> None:
        """Refuse, before anything is made, a credential that cannot do all that a cluster takes.

        Raises:
            PermanentError: an access rule is lacking.
        """
        cloud = self.identity.cloud  # the rules come with it
        if self._rules is not None:
            rules.check(cloud, self._rules, rules.CHANGES)

    def stop(self) -> None:
        """End every wait between two tries, now and from now on."""
        self._stopped.set()

    def _pause(self, seconds: float) -> None:
        if self._stopped.wait(seconds):
            raise CancelledError("interrupted while the cloud asked to be left alone")

    def close(self) -> None:
        """Close the connections."""
        self._connection.close()

    def _authenticate(self) -> Identity:
        from keystoneauth1.identity import BaseIdentityPlugin
        from keystoneauth1.session import Session

        doing = f"cloud `{self._cloud}`"
        session, region = self._connection.session, self._connection.config.get_region_name()

        # The same connections, but less patience.
        hasty = Session(
            session=session.session,
            verify=session.verify,
            cert=session.cert,
            timeout=min(session.timeout or LOGIN_TIMEOUT, LOGIN_TIMEOUT),
            app_name="vcluster",
        )

        def log_in() -> AccessInfo | None:
            try:
                return session.auth.get_access(hasty) if isinstance(session.auth, BaseIdentityPlugin) else None
            except Exception as error:
                raise errors.from_login(error, doing=doing, entry=self._entry) from error

        access = repeated(log_in, self._sleep, tries=LOGIN_TRIES, until=time.monotonic() + LOGIN_PATIENCE)
        if access is None:
            raise PermanentError(
                f"{doing}: this kind of credential names no user",
                remedy="use a password or an application credential (auth_type: v3applicationcredential)",
            )
        if not access.project_id:
            raise PermanentError(
                f"{doing}: the credential is for no project", remedy="set project_name (OS_PROJECT_NAME)"
            )
        identity = Identity(
            user=access.user_id or "",
            user_name=access.username or access.user_id or "",
            project=access.project_id,
            project_name=access.project_name or access.project_id,
            region=region or "",
            cloud=self._cloud,
        )
        self._check_region(access, region or "")
        self._rules = getattr(access, "application_credential_access_rules", None)
        if self._rules is not None:
            rules.check(self._cloud, self._rules, rules.LOOKS)
        return identity

    def _check_region(self, access: object, region: str) -> None:
        catalogue = getattr(access, "service_catalog", None)
        if catalogue is None:
            return
        kinds = {entry.get("type"): entry.get("endpoints", []) for entry in catalogue.catalog}
        regions = {str(e.get("region_id") or e.get("region") or "") for e in kinds.get("compute", [])}
        if not regions:
            raise PermanentError(
                f"cloud `{self._cloud}`: this project has no compute service",
                remedy="an allocation must be active for the project; check project_name, or ask the operator",
            )
        if not region and len(regions) > 1:
            raise PermanentError(
                f"cloud `{self._cloud}` has several regions, and the credential names none",
                remedy=f"set region_name (OS_REGION_NAME): {', '.join(sorted(regions))}",
            )
        if region and region not in regions:
            raise PermanentError(
                f"cloud `{self._cloud}` has no region {region!r}", remedy=f"it has: {', '.join(sorted(regions))}"
            )

    def _has(self, service: str) -> bool:
        config = self._connection.config
        try:
            # Out of the catalogue, which came with the token: asks nobody.
            found = config.get_session_client(service).get_endpoint(skip_discovery=True)
        except Exception as error:
            said = errors.from_exception(error, doing=f"looking for {service}")
            if not isinstance(said, PermanentError):
                raise said from error
            return False
        return found is not None


def connect(name: str) -> Services:
    """The cloud of that name: an entry of clouds.yaml, or for ``openstack`` and ``envvars`` the ``OS_*`` variables.

    Raises:
        UsageError: there is no such entry, or no such variables.
        PermanentError: the entry lacks something.
    """
    import openstack
    import openstack.config
    from openstack import exceptions as sdk

    # A library's warnings belong into its user's log; without a log Python prints them.
    logging.getLogger("keystoneauth").addHandler(logging.NullHandler())
    skipped = _Skipped()
    logger = logging.getLogger("openstack.config")
    logger.addHandler(skipped)
    entry = errors.Entry(name)
    try:
        try:
            config = openstack.config.OpenStackConfig()
        except (TypeError, AttributeError) as error:
            # The SDK takes what stands under `clouds:` for a mapping, also where nothing does.
            raise UsageError(
                f"there is no cloud `{name}`: clouds.yaml has no entries under `clouds:`", remedy=GET_ONE
            ) from error
        clouds = config.cloud_config["clouds"]
        # Where nobody wrote an entry, the SDK makes up one of its defaults.
        names = [str(n) for n in clouds if n != "defaults" or clouds[n] != config.defaults]
        chosen = name
        if name in FROM_ENVIRONMENT and name not in names:
            chosen = ENVIRONMENT
        file = config.config_filename or ""
        if chosen not in names:
            raise _unknown(name, names, file, skipped.said)
        entry = errors.Entry("" if chosen == config.envvar_key else chosen, file)
        connection = openstack.connect(cloud=chosen, app_name="vcluster")
        auth_url = str(connection.config.config.get("auth", {}).get("auth_url") or "")
        entry = dataclasses.replace(entry, auth_url=auth_url)
    except (sdk.ConfigException, OSError) as error:
        raise PermanentError(
            f"cloud `{name}`: {errors.words(str(error)) or type(error).__name__}",
            remedy=f"`openstack --os-cloud {name} token issue` (of the package python-openstackclient) must work first",
        ) from error
    except VclusterError:
        raise
    except Exception as error:
        raise _incomplete(name, error, entry) from error
    finally:
        logger.removeHandler(skipped)
    _widen(connection)
    return Services(connection, name, entry)


def _incomplete(name: str, error: Exception, entry: errors.Entry) -> CloudError:
    from keystoneauth1 import exceptions as ks

    if isinstance(error, ks.MissingRequiredOptions):
        missing = [str(option.dest) for option in error.options]
        return PermanentError(
            f"cloud `{name}`: the credential is not complete: {', '.join(missing)} missing",
            remedy="; ".join(entry.add(word) for word in missing),
        )
    if isinstance(error, AttributeError):
        # The SDK takes an entry for a mapping, whatever it is.
        return PermanentError(
            f"cloud `{name}`: {entry} is empty, or no mapping", remedy=f"it needs `auth:` with its words; {GET_ONE}"
        )
    if isinstance(error, TypeError):
        # The SDK hands what stands under `auth:` to the plugin, as it is.
        return PermanentError(f"cloud `{name}`: {error}", remedy=f"check the words under `auth:` in {entry}")
    return errors.from_login(error, doing=f"cloud `{name}`", entry=entry)


class _Skipped(logging.Handler):
    """Hears of a clouds.yaml that is no YAML: the SDK passes it over as if it were not there."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.said = ""

    def emit(self, record: logging.LogRecord) -> None:
        self.said = " ".join(record.getMessage().split())


def _unknown(name: str, names: list[str], file: str, skipped: str) -> UsageError:
    if skipped:
        return UsageError(f"there is no cloud `{name}`", remedy=f"mend the file: {skipped}")
    where = f" in {file}" if file else ""
    if names:
        near = difflib.get_close_matches(name, names, n=3, cutoff=0.5) or sorted(names)
        remedy = f"there is {', '.join(f'`{n}`' for n in near)}"
    elif file:
        remedy = f"the file has no entry: {GET_ONE}"
    else:
        remedy = (
            f"no clouds.yaml was found (./, ~/.config/openstack/, /etc/openstack/, $OS_CLIENT_CONFIG_FILE): {GET_ONE}"
        )
    if name in FROM_ENVIRONMENT:
        entry = f", and no entry `{name}`{where}" if file else ""
        return UsageError(
            f"there are no OS_* variables{entry}",
            remedy=f"`source` the project's openrc file, or name a cloud: {remedy}",
        )
    return UsageError(f"there is no cloud `{name}`{where}", remedy=remedy)


def _widen(connection: Connection) -> None:
    """Make room for our threads: the SDK's pool keeps ten connections, and would open and close all others."""
    from keystoneauth1.session import TCPKeepAliveAdapter

    session = connection.session
    for scheme in ("https://", "http://"):
        session.mount(scheme, TCPKeepAliveAdapter(pool_maxsize=CONNECTIONS))
    if session.timeout is None:
        session.timeout = TIMEOUT

"""The Hub's settings: facts from hub.json, secrets from the environment, and nothing of a cluster in this file."""

import asyncio
import os
import sqlite3
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from hub_facts import facts, public_url  # noqa: E402
from hub_login import login  # noqa: E402
from jupyterhub.app import JupyterHub  # noqa: E402
from sqlalchemy import event  # noqa: E402
from sqlalchemy.engine import Engine  # noqa: E402
from vcluster_proxy import Proxy  # noqa: E402
from vcluster_spawner import NotebookSpawner, watch  # noqa: E402

c = get_config()  # noqa: F821
hub = facts()
size = max(1, hub["class_size"])
state = Path(hub["state"])
address, ports = hub["head"]["address"], hub["ports"]

# -- where it listens ----------------------------------------------------------------------------------------------
c.JupyterHub.public_url = public_url(hub)
c.JupyterHub.bind_url = f"http://127.0.0.1:{ports['proxy']}"
c.JupyterHub.hub_bind_url = f"http://{address}:{ports['hub']}"
# Addresses of people, for the log and for who guesses passwords: they come through Caddy and the proxy.
c.JupyterHub.trusted_downstream_ips = ["127.0.0.1", "::1", address]
frame = "frame-ancestors 'none'"
c.JupyterHub.tornado_settings = {
    "headers": {"Content-Security-Policy": frame},
    # A page that shows progress comes at once, and a slow start is no warning: a class starts together.
    "slow_spawn_timeout": 0,
    "slow_stop_timeout": 5,
}

# -- the proxy runs by itself, so that a restart of the Hub cuts nobody off -----------------------------------------
c.JupyterHub.proxy_class = Proxy
c.ConfigurableHTTPProxy.should_start = False
c.ConfigurableHTTPProxy.api_url = f"http://127.0.0.1:{ports['api']}"
c.ConfigurableHTTPProxy.concurrency = 20
c.JupyterHub.cleanup_servers = False
c.JupyterHub.init_spawners_timeout = 60

# -- what it keeps: the cookie secret and tokens come from the environment ------------------------------------------
c.JupyterHub.db_url = f"sqlite:///{state}/jupyterhub.sqlite"
c.JupyterHub.cookie_max_age_days = 1
c.JupyterHub.shutdown_on_logout = False


@event.listens_for(Engine, "connect")
def _sqlite(connection, _record):
    # Each commit holds up the whole Hub; with a log written ahead it waits for no disk.
    if isinstance(connection, sqlite3.Connection):
        cursor = connection.cursor()
        cursor.execute("PRAGMA journal_mode=WAL")
        cursor.execute("PRAGMA synchronous=NORMAL")
        cursor.close()


# -- who gets in ---------------------------------------------------------------------------------------------------
login(c, hub, state)
c.Authenticator.any_allow_config = True
c.Authenticator.allow_existing_users = False
c.Authenticator.manage_groups = True
c.Authenticator.auth_refresh_age = 120

# -- notebooks -----------------------------------------------------------------------------------------------------
c.JupyterHub.spawner_class = NotebookSpawner
c.NotebookSpawner.cluster = hub
c.Spawner.apply_user_options = lambda _spawner, _options: None  # the spawner looks at the profile's name alone
c.Spawner.default_url = "/lab"
c.Spawner.start_timeout = max(300, 60 + 3 * size)
c.Spawner.http_timeout = 120
c.Spawner.consecutive_failure_limit = 0
c.JupyterHub.concurrent_spawn_limit = size + 10
c.JupyterHub.active_server_limit = hub["capacity"] or 0
c.JupyterHub.allow_named_servers = False

# -- idle servers end ----------------------------------------------------------------------------------------------
culler = [sys.executable, "-m", "jupyterhub_idle_culler", "--api-page-size=200"]
idle = hub["idle"]
every = 300
if idle["server"] or idle["longest"]:
    every = max(60, min(300, min(seconds for seconds in (idle["server"], idle["longest"]) if seconds) // 4))
    culler += [f"--cull-every={every}", f"--timeout={idle['server'] or 10**9}", f"--max-age={idle['longest'] or 0}"]
# Servers say often enough when they were last used.
c.Spawner.environment = {"JUPYTERHUB_ACTIVITY_INTERVAL": str(min(300, every))}
c.JupyterHub.last_activity_interval = 300

# -- services and ranks --------------------------------------------------------------------------------------------
c.JupyterHub.services = [{"name": "vcluster", "api_token": os.environ["VCLUSTER_SERVICE_TOKEN"]}]
c.JupyterHub.load_roles = [
    {
        "name": "vcluster",
        "description": "The head's own commands",
        "scopes": [
            "admin:users",
            "admin:servers",
            "list:users",
            "read:users",
            "read:hub",
            "read:metrics",
            "proxy",
            "tokens",
        ],
        "services": ["vcluster"],
    },
    {
        "name": "instructor",
        "description": "Sees, stops and opens everybody's servers",
        "scopes": [
            "admin-ui",
            "list:users",
            "read:users",
            "read:servers",
            "servers",
            "access:servers",
            "read:hub",
        ],
        "groups": ["instructors"],
    },
]
if idle["server"] or idle["longest"]:
    c.JupyterHub.services.append({"name": "idle-culler", "command": culler})
    c.JupyterHub.load_roles.append(
        {
            "name": "idle-culler",
            "description": "Stops servers that nobody uses",
            "scopes": ["list:users", "read:users:activity", "read:servers", "delete:servers"],
            "services": ["idle-culler"],
        }
    )

# Jobs that belong to no server, after a Hub that was killed at a bad moment. The loop runs already.
_watch = asyncio.get_running_loop().create_task(watch(JupyterHub.instance(), hub))

"""What the chart's values cannot say. The chart's own configuration runs this at its end, and brings c and get_config.

The ways to log in are the programs of the Hub on a Slurm head: only who is on the list gets in, and a rank takes its
own password, where the chart's classes would make an admin of whoever first thinks of an admin's name.
"""

import os
import sqlite3
from pathlib import Path

from hub_facts import facts
from hub_login import login
from sqlalchemy import event
from sqlalchemy.engine import Engine

STATE = Path("/srv/jupyterhub")


@event.listens_for(Engine, "connect")
def _sqlite(connection, _record):
    # Each commit holds up the whole Hub; with a log written ahead it waits for no disk.
    if isinstance(connection, sqlite3.Connection):
        cursor = connection.cursor()
        cursor.execute("PRAGMA journal_mode=WAL")
        cursor.execute("PRAGMA synchronous=NORMAL")
        cursor.close()


os.environ["VCLUSTER_CLIENT_SECRET"] = get_config("custom.clientSecret") or ""  # noqa: F821
login(c, facts(), STATE)  # noqa: F821
c.JupyterHub.cookie_max_age_days = 1  # noqa: F821

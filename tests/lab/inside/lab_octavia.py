"""Load balancers that balance nothing: active at once, with a port of their own in Neutron, and gone at once.

A provider's driver is only told what is wanted; what comes of it Octavia hears from the provider's own processes. Here
that is a thread that looks for what is pending, and says that it is done. While ``LAB_ROOT/octavia-holds`` is there it
says nothing, and what is pending stays so; it makes ``octavia-held`` when it has seen that.
"""

import os
import pathlib
import threading
import time
import traceback

from octavia.api.drivers.driver_agent import driver_updater
from octavia.common import constants
from octavia.db import api, models
from octavia_lib.api.drivers import provider_base

HOLDS = pathlib.Path(os.environ["LAB_ROOT"], "octavia-holds")
HELD = HOLDS.with_name("octavia-held")
CHILDREN = {
    constants.LISTENERS: models.Listener,
    constants.POOLS: models.Pool,
    constants.MEMBERS: models.Member,
    constants.HEALTHMONITORS: models.HealthMonitor,
}


class LabProviderDriver(provider_base.ProviderDriver):
    """Takes every order; what is left out here it cannot do, and says so. The VIP's port is Octavia's own doing."""

    def _taken(self, *things, **more):
        pass

    loadbalancer_create = loadbalancer_update = loadbalancer_delete = _taken
    listener_create = listener_update = listener_delete = _taken
    pool_create = pool_update = pool_delete = _taken
    member_create = member_update = member_delete = member_batch_update = _taken
    health_monitor_create = health_monitor_update = health_monitor_delete = _taken


def settle():
    """Say of all that is pending that it is done: children first, since a load balancer that is gone has none."""
    session = api.get_session()
    with session.begin():
        # First, so that one is never done before children that were made with it.
        balancers = _pending(session, models.LoadBalancer)
        pending = {key: _pending(session, model) for key, model in CHILDREN.items()}
        gone = [one["id"] for one in balancers if one[constants.PROVISIONING_STATUS] == constants.DELETED]
        for key in (constants.LISTENERS, constants.POOLS):
            of_gone = session.query(CHILDREN[key].id).filter(CHILDREN[key].load_balancer_id.in_(gone))
            pending[key] += [
                {"id": row.id, constants.PROVISIONING_STATUS: constants.DELETED}
                for row in of_gone
                if row.id not in {one["id"] for one in pending[key]}
            ]
    if balancers or any(pending.values()):
        told = driver_updater.DriverUpdater().update_loadbalancer_status(pending | {constants.LOADBALANCERS: balancers})
        if told["status_code"] != 200:
            raise RuntimeError(told["status_fault_string"])


def _pending(session, model):
    rows = session.query(model.id, model.provisioning_status).filter(model.provisioning_status.like("PENDING%"))
    return [_done(row.id, row.provisioning_status) for row in rows]


def _done(uuid, status):
    if status == constants.PENDING_DELETE:
        return {"id": uuid, constants.PROVISIONING_STATUS: constants.DELETED}
    return {
        "id": uuid,
        constants.PROVISIONING_STATUS: constants.ACTIVE,
        constants.OPERATING_STATUS: constants.ONLINE,
    }


def _for_ever():
    while True:
        time.sleep(0.2)
        try:
            if HOLDS.exists():
                HELD.touch()
            else:
                settle()
        except Exception:  # noqa: BLE001 - whatever it was, it is told, and tried again
            traceback.print_exc()


def start():
    threading.Thread(target=_for_ever, daemon=True).start()

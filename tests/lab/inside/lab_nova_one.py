"""lab_nova_one.py PORT URL…: Nova's API, conductor, scheduler and computes in one process over an in-memory bus.

The services at the URLs must answer before the computes start: they register with them.
"""
# ruff: noqa: E402 - how threads are made is decided before anything else is imported

from nova import monkey_patch

monkey_patch.patch(backend="threading")

import importlib
import os
import sys
import time
import traceback
import urllib.error
import urllib.request
import uuid
from pathlib import Path

import lab_nova
import os_vif
from lab_serve import serve
from nova import context, objects, service
from nova.api.openstack import wsgi_app
from nova.compute import rpcapi as compute_rpcapi
from nova.conductor import rpcapi as conductor_rpcapi
from nova.conf import CONF
from nova.objects import host_mapping
from nova.scheduler import rpcapi as scheduler_rpcapi


def wait_for(url, timeout=300):
    """Until it answers, with whatever status."""
    deadline = time.monotonic() + timeout
    while True:
        try:
            urllib.request.urlopen(url, timeout=10).close()
        except urllib.error.HTTPError:
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
        else:
            return


NO_MACHINES = "lab_nova.LabDriver"


def offer_driver(name):
    """Nova loads drivers from below nova.virt alone: make the lab's appear there."""
    module = name.rpartition(".")[0]
    sys.modules[f"nova.virt.{module}"] = importlib.import_module(module)


def start(host, binary, topic, **kwargs):
    CONF.set_override("host", host)
    running = service.Service.create(host=host, binary=binary, topic=topic, **kwargs)
    running.start()
    # It would say so itself, some seconds later; until then the time of an earlier run counts, and it would be "down".
    running.service_ref.report_count += 1
    running.service_ref.save()


def boot(computes):
    """Start all services; the last of the computes never runs real machines."""
    objects.Service.enable_min_version_cache()
    start("controller", "nova-conductor", conductor_rpcapi.RPC_TOPIC)
    start("controller", "nova-scheduler", scheduler_rpcapi.RPC_TOPIC)
    for host in computes:
        if host == computes[-1]:
            CONF.set_override("compute_driver", NO_MACHINES)
        start(host, "nova-compute", compute_rpcapi.RPC_TOPIC, topic_alt=compute_rpcapi.RPC_TOPIC_ALT)
    CONF.set_override("host", "controller")
    host_mapping.discover_hosts(context.get_admin_context())


def main():
    port, *urls = sys.argv[1:]
    sys.argv = ["nova"]
    objects.register_all()
    os_vif.initialize()
    application = wsgi_app.init_application("osapi_compute", "nova-api-os-compute")
    # A compute refuses a second start without this file; which id it holds matters to none of the lab's drivers.
    Path(CONF.state_path, "compute_id").write_text(str(uuid.uuid5(uuid.NAMESPACE_DNS, "lab")))
    lab_nova.install()
    for name in (CONF.compute_driver, NO_MACHINES):
        offer_driver(name)
    for url in urls:
        wait_for(url)
    boot(os.environ["LAB_COMPUTES"].split())
    serve(application, int(port), threads=24)


if __name__ == "__main__":
    try:
        main()
    except BaseException:  # noqa: BLE001 - whatever it was, it is told, and the process ends
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)  # the services' threads are no daemons: with a plain exit they would keep the process

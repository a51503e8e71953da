"""lab_cinder_one.py PORT: Cinder's API, scheduler and one volume service in one process over an in-memory bus."""
# ruff: noqa: E402 - how threads are made is decided before anything else is imported

from cinder import monkey_patch

monkey_patch.patch(backend="threading")

import os
import sys
import threading
import time
import traceback
from pathlib import Path

from cinder.common import constants
from cinder.wsgi import wsgi
from lab_serve import serve


def boot():
    from cinder import service  # after the application: it reads the configuration

    class Service(service.Service):
        """Cinder has one service a process, and keeps in the class which one reports that it is up."""

        def report_state(self):
            service.Service.service_id = self.origin_service_id
            super().report_state()

    volume = Service.create(
        host="controller@lab", service_name="lab", binary=constants.VOLUME_BINARY, coordination=True
    )
    scheduler = Service.create(host="controller", binary=constants.SCHEDULER_BINARY)
    # The scheduler waits for the first report of a volume service, and the volume service reports to a scheduler.
    starting = threading.Thread(target=scheduler.start)
    starting.start()
    volume.start()
    starting.join()
    for running in (scheduler, volume):
        running.report_state()  # until the timer does, the time of an earlier run would count
    introduce(volume, scheduler)


def introduce(volume, scheduler):
    """Return when the scheduler knows what the volume service can do.

    What is said to a service that does not listen yet is lost, and it is said again only each minute. On a busy machine
    both may begin so that neither hears the other; until then every volume would end in error.

    Raises:
        RuntimeError: it does not know after five minutes.
    """
    from cinder import context

    known = scheduler.manager.driver.host_manager.service_states
    deadline = time.monotonic() + 300
    while not known:
        if time.monotonic() > deadline:
            raise RuntimeError("Cinder's scheduler does not hear of the volume service")
        volume.manager.publish_service_capabilities(context.get_admin_context())
        time.sleep(0.1)


def main():
    port = int(sys.argv[1])
    # The services read their command line when they start; Cinder knows no variable for its configuration.
    sys.argv = ["cinder", "--config-file", str(Path(os.environ["LAB_ROOT"], "etc/cinder/cinder.conf"))]
    application = wsgi.initialize_application()
    boot()
    serve(application, port, threads=16)


if __name__ == "__main__":
    try:
        main()
    except BaseException:  # noqa: BLE001 - whatever it was, it is told, and the process ends
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)  # the services' threads are no daemons: with a plain exit they would keep the process

"""lab_serve.py SERVICE PORT: one OpenStack API under waitress, in one process with threads."""

import gc
import importlib
import sys

import waitress

APPLICATIONS = {
    "identity": "keystone.wsgi.api",
    "image": "glance.wsgi.api",
    "placement": "placement.wsgi.api",
    "network": "neutron.wsgi.api",
}


def serve(application: object, port: int, threads: int) -> None:
    """Answer until the process ends."""
    # The services have hundreds of thousands of objects that stay, and SQLAlchemy makes many that go: looking through
    # the former each time for the latter took a quarter of Neutron's and Nova's CPU time.
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)
    waitress.serve(
        application,
        host="127.0.0.1",
        port=port,
        threads=threads,
        ident=None,
        channel_timeout=600,
        connection_limit=500,
    )


if __name__ == "__main__":
    name, port = sys.argv[1], int(sys.argv[2])
    sys.argv = [name]  # the services read their command line when they are imported
    application = importlib.import_module(APPLICATIONS[name]).application
    if name == "network":
        # Neutron would load its policies with the first request, and refuse (403) those that come meanwhile.
        importlib.import_module("neutron.policy").init()
    serve(application, port, threads=16)

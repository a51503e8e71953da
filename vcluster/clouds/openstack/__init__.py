"""OpenStack, by openstacksdk: the cloud that matters.

::

    connect.py    clouds.yaml, openrc, OS_*: who asks, and which project
    rules.py      what an application credential's access rules must allow
    rest.py       one request: retries, paging, the cloud's clock
    errors.py     an answer's status and words -> our error classes
    marks.py      how identity, notes and names are written on resources
    pictures.py   the cloud's JSON -> our frozen pictures
    lookups.py    flavors, images, quota: asked once
    networks.py   the networks, subnets and routers that are there before a cluster
    layout.py     what a cluster needs around its machines
    observe.py    one listing per kind
    stale.py      ports freed of servers that are gone
    create.py     network, ports, machines, volumes
    parts.py      subnet, router, gateway, groups, floating IP
    addresses.py  floating IPs that are there, and who holds them
    delete.py, power.py, notes.py, clusters.py
    known.py      what this process saw and did itself
    cloud.py      the protocol of vcluster.clouds.base
"""

from vcluster.clouds.openstack.cloud import OpenStackCloud

__all__ = ["OpenStackCloud"]

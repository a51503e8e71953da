"""What a Kubernetes asks of the cloud, without one: the calls of kubernetes/cloud-provider-openstack, word for word.

Of ``pkg/openstack/loadbalancer.go``, ``loadbalancer_sg.go`` and ``pkg/csi/cinder/controllerserver.go``, in July 2026.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from tests.lab.cloud_bed import until

if TYPE_CHECKING:
    from openstack.connection import Connection

__all__ = ["Kubernetes"]

CSI = "cinder.csi.openstack.org/cluster"
NODE_PORT = 30080

#: Kind -> service, path and more, in the order in which they go.
_WAYS = {
    "load balancer": ("load_balancer", "/lbaas/loadbalancers", "?cascade=true"),
    "floating IP": ("network", "/floatingips", ""),
    "snapshot": ("block_storage", "/snapshots", ""),
    "volume": ("block_storage", "/volumes", ""),
    "security group": ("network", "/security-groups", ""),
}


@dataclass
class Kubernetes:
    """A cloud controller manager and a CSI driver of Cinder's.

    Args:
        connection: of the user whose credential they have.
        cluster: what ``--cluster-name`` and ``--cluster`` say.
        subnet: where its nodes are.
        public: the external network.
        made: uuid by what it made.
    """

    connection: Connection
    cluster: str
    subnet: str
    public: str
    made: dict[str, str] = field(default_factory=dict)

    def expose(self, service: str, *, namespace: str = "default", ports: tuple[str, ...] = ()) -> None:
        """A Service of type LoadBalancer, with a floating IP and (``manage-security-groups``) a group on the nodes.

        Args:
            ports: of the nodes that it leads to.
        """
        name = f"kube_service_{self.cluster}_{namespace}_{service}"[:255]
        pool = {
            "name": f"pool_0_{name}"[:255],
            "protocol": "TCP",
            "lb_algorithm": "ROUND_ROBIN",
            "members": [{"address": "10.9.0.9", "protocol_port": NODE_PORT, "name": "node"}],
        }
        listener = {
            "name": f"listener_0_{name}"[:255],
            "protocol": "TCP",
            "protocol_port": 80,
            "tags": [name],
            "default_pool": pool,
        }
        asked = {
            "name": name,
            "description": f"Kubernetes external service {namespace}/{service} from cluster {self.cluster}",
            "tags": [name],
            "vip_subnet_id": self.subnet,
            "listeners": [listener],
        }
        balancer = self._octavia("post", "/lbaas/loadbalancers", asked)
        self.made[f"load balancer {service}"] = balancer["id"]
        until(lambda: self.balancer(service)["provisioning_status"] == "ACTIVE", "load balancer")
        said = f"Floating IP for Kubernetes external service {namespace}/{service} from cluster {self.cluster}"
        network = self.connection.network
        address = network.create_ip(floating_network_id=self.public, port_id=balancer["vip_port_id"], description=said)
        self.made[f"floating IP {service}"] = address.id
        group = network.create_security_group(
            name=f"lb-sg-{uuid.uuid4()}-{namespace}-{service}"[:255],
            description=f"Security Group for {namespace}/{service} Service LoadBalancer in cluster {self.cluster}",
        )
        self.made[f"security group {service}"] = group.id
        network.create_security_group_rule(
            security_group_id=group.id,
            direction="ingress",
            protocol="tcp",
            ethertype="IPv4",
            remote_ip_prefix="10.0.0.0/8",
            port_range_min=NODE_PORT,
            port_range_max=NODE_PORT,
        )
        for port in ports:
            groups = network.get_port(port).security_group_ids
            network.update_port(port, security_groups=[*groups, group.id])

    def balancer(self, service: str) -> dict[str, Any]:
        return self._octavia("get", f"/lbaas/loadbalancers/{self.made[f'load balancer {service}']}")

    def change(self, service: str) -> None:
        """What a new node is to the controller: the load balancer is PENDING_UPDATE for a while."""
        path = f"/lbaas/loadbalancers/{self.made[f'load balancer {service}']}"
        self._octavia("put", path, {"admin_state_up": True})

    def claim(self, name: str, *, namespace: str = "default", server: str = "") -> None:
        """A PersistentVolumeClaim; mounted by a pod on that server, if one is named."""
        volume = f"pvc-{uuid.uuid4()}"
        metadata = {
            CSI: self.cluster,
            "csi.storage.k8s.io/pvc/name": name,
            "csi.storage.k8s.io/pvc/namespace": namespace,
            "csi.storage.k8s.io/pv/name": volume,
        }
        cinder = self.connection.block_storage
        made = cinder.create_volume(name=volume, size=1, metadata=metadata)
        self.made[f"volume {name}"] = made.id
        until(lambda: cinder.get_volume(made.id).status == "available", "volume")
        if server:
            self.connection.compute.create_volume_attachment(server, volume_id=made.id)
            until(lambda: cinder.get_volume(made.id).status == "in-use", "volume on its server")

    def snapshot(self, name: str) -> None:
        """A VolumeSnapshot of a claim."""
        cinder = self.connection.block_storage
        made = cinder.create_snapshot(
            name=f"snapshot-{uuid.uuid4()}",
            volume_id=self.made[f"volume {name}"],
            is_forced=True,
            metadata={CSI: self.cluster},
        )
        self.made[f"snapshot {name}"] = made.id
        until(lambda: cinder.get_snapshot(made.id).status == "available", "snapshot")

    def clear(self) -> None:
        """Delete all that it made and is still there."""
        for kind, (service, path, how) in _WAYS.items():
            cloud = getattr(self.connection, service)
            paths = [f"{path}/{uuid}" for what, uuid in self.made.items() if what.startswith(kind)]
            for one in paths:
                cloud.delete(one + how)
            for one in paths:
                until(partial(_gone, cloud, one), f"end of a {kind}")

    def _octavia(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        sent = {} if body is None else {"json": {"loadbalancer": body}}
        answer = getattr(self.connection.load_balancer, method)(path, **sent)
        answer.raise_for_status()
        told: dict[str, Any] = answer.json()["loadbalancer"]
        return told


def _gone(cloud: Any, path: str) -> bool:
    return bool(cloud.get(path).status_code == 404)

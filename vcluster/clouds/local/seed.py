"""The NoCloud seed: what a machine reads at its first boot, on a small ISO that only its owner may read."""

from __future__ import annotations

import gzip
import json
from io import BytesIO

__all__ = ["network_config", "seed_iso"]


def network_config(*, private_mac: str, address: str, prefix: int, mtu: int, outside_mac: str) -> str:
    """Netplan's version 2 (JSON is YAML): the private address is ours to say, the way out is QEMU's DHCP.

    Args:
        prefix: length of the private network's prefix in bits.
        mtu: of the private network, in bytes.
    """
    ethernets = {
        "private": {
            "match": {"macaddress": private_mac},
            "addresses": [f"{address}/{prefix}"],
            "dhcp4": False,
            "dhcp6": False,
            "accept-ra": False,
            "mtu": mtu,
        },
        "outside": {
            "match": {"macaddress": outside_mac},
            "dhcp4": True,
            "dhcp6": False,
            "accept-ra": False,
        },
    }
    return json.dumps({"version": 2, "ethernets": ethernets}, indent=1) + "\n"


def seed_iso(*, instance_id: str, hostname: str, user_data: str, network: str) -> bytes:
    """The image of a ``cidata`` volume.

    Args:
        instance_id: the machine's uuid; cloud-init configures once for each.
        user_data: goes gzipped, as it would to Nova, so that what is tried here is what is sent there.
    """
    import pycdlib

    meta_data = json.dumps({"instance-id": instance_id, "local-hostname": hostname}) + "\n"
    files = {
        "meta-data": meta_data.encode(),
        "user-data": gzip.compress(user_data.encode(), mtime=0),
        "network-config": network.encode(),
    }
    iso = pycdlib.PyCdlib()
    iso.new(interchange_level=3, joliet=3, rock_ridge="1.09", vol_ident="cidata")
    for number, (name, content) in enumerate(files.items()):
        iso.add_fp(
            BytesIO(content),
            len(content),
            f"/FILE{number}.;1",
            rr_name=name,
            joliet_path=f"/{name}",
        )
    out = BytesIO()
    iso.write_fp(out)
    iso.close()
    return out.getvalue()

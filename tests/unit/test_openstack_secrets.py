"""What a machine is told, Nova is told; nobody else."""

from __future__ import annotations

import json

import pytest
from openstack_kit import NOVA, REF, FakeCloud, cloud, fake, flavors, machine_request

from vcluster.clouds.openstack import OpenStackCloud

__all__ = ["cloud", "fake", "flavors"]


def test_no_secret_is_in_what_is_said(fake: FakeCloud, cloud: OpenStackCloud, flavors: None) -> None:
    """Nova's answer may quote the request; ours is about the machine alone."""
    fake.nova("POST", "/servers", status_code=503, text="")
    with pytest.raises(Exception, match="create server") as caught:
        cloud.create_machine(REF, machine_request(user_data="#cloud-config\n# hunter2\n"))
    assert "hunter2" not in json.dumps(str(caught.value))
    assert "user_data" not in str(caught.value)
    assert fake.asked("POST", NOVA)[0].json()["server"]["user_data"]


@pytest.mark.usefixtures("flavors")
def test_no_secret_is_in_a_debug_log(fake: FakeCloud, cloud: OpenStackCloud, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    fake.nova("POST", "/servers", status_code=202, json={"server": {"id": "s1", "adminPass": "hunter3"}})
    cloud.create_machine(REF, machine_request(user_data="#cloud-config\n# hunter2\n"))
    cloud.flavor("m3.tiny")
    sent = fake.asked("POST", NOVA)[0].json()["server"]["user_data"]
    assert "flavors/detail" in caplog.text  # so the log is on
    for secret in (sent, "hunter2", "hunter3", "secret"):
        assert secret not in caplog.text

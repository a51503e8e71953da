"""What stands behind Nova when no machine is wanted: its own fake driver, with node ids that survive a restart."""

import io
import uuid

import lab_failures
from nova import context as nova_context
from nova import exception, objects
from nova.compute import task_states
from nova.conductor import manager as conductor
from nova.image import glance
from nova.scheduler.client import report
from nova.virt import fake


class LabDriver(fake.FakeDriver):
    """The fake driver, plus: snapshots that hold a few bytes, memory of an earlier run, failures on demand."""

    # Room for every test at once, QEMU's machines included: what is scarce is set by quota.
    vcpus = 20000
    memory_mb = 80_000_000

    def init_host(self, host):
        super().init_host(host)
        for instance in objects.InstanceList.get_by_host(nova_context.get_admin_context(), host):
            self.instances[instance.uuid] = fake.FakeInstance(instance.name, instance.power_state or 1, instance.uuid)

    @staticmethod
    def _node_uuid(name):
        return str(uuid.uuid5(uuid.NAMESPACE_DNS, name))

    def get_available_resource(self, nodename):
        return super().get_available_resource(nodename) | {"uuid": self._node_uuid(nodename)}

    def get_nodenames_by_uuid(self, refresh=False):
        return {self._node_uuid(name): name for name in self.get_available_nodes()}

    def spawn(self, context, instance, *args, **kwargs):
        order = lab_failures.take(instance.display_name, ("abort", "crash"))
        if order and order["kind"] == "abort":
            raise exception.BuildAbortException(instance_uuid=instance.uuid, reason=order["text"])
        if order:
            raise exception.InstanceDeployFailure(order["text"])
        super().spawn(context, instance, *args, **kwargs)

    def snapshot(self, context, instance, image_id, update_task_state):
        if instance.uuid not in self.instances:
            raise exception.InstanceNotRunning(instance_id=instance.uuid)
        update_task_state(task_state=task_states.IMAGE_PENDING_UPLOAD)
        update_task_state(task_state=task_states.IMAGE_UPLOADING, expected_state=task_states.IMAGE_PENDING_UPLOAD)
        form = {"disk_format": "raw", "container_format": "bare"}
        data = io.BytesIO(b"snapshot of " + instance.uuid.encode())
        glance.API().update(context, image_id, form, data, purge_props=False)


class FailingConductor:
    """Wraps how the conductor finds hosts: what fails before a host is known can't be told to a driver."""

    def __init__(self):
        self._schedule = conductor.ComputeTaskManager._schedule_instances

    def install(self):
        def schedule(manager, context, request_spec, instance_uuids=None, return_alternates=False):
            self._fail(context, instance_uuids or [request_spec.instance_uuid])
            return self._schedule(manager, context, request_spec, instance_uuids, return_alternates)

        conductor.ComputeTaskManager._schedule_instances = schedule

    @staticmethod
    def _fail(context, instance_uuids):
        for instance_uuid in instance_uuids:
            try:
                build = objects.BuildRequest.get_by_instance_uuid(context, instance_uuid)
            except exception.BuildRequestNotFound:  # an unshelve: it has no build request, and may go on
                continue
            order = lab_failures.take(build.instance.display_name, ("no-valid-host", "quota"))
            if order and order["kind"] == "quota":
                raise exception.OverQuota(order["text"])
            if order:
                raise exception.NoValidHost(reason=order["text"])


def install():
    """Change in Nova itself what no driver can."""
    FailingConductor().install()
    # Each claim asks Placement for the allocations of every instance of the host, one request each, while it holds
    # the host's lock: quadratic with few hosts. What comes of it serves reshapes and PCI alone.
    report.SchedulerReportClient.get_allocations_for_provider_tree = lambda *args, **kwargs: {}

"""The services' configuration files, rendered for one lab."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.lab.layout import DIRECT, PATHS, Layout

__all__ = ["database_url", "write"]

DRIVERS = {"fake": "lab_nova.LabDriver", "qemu": "lab_qemu.QemuDriver"}

# Found by neutron's ML2 through the metadata of an installed distribution; a folder on PYTHONPATH is as good as one.
ENTRY_POINTS = """[neutron.ml2.mechanism_drivers]
lab = lab_neutron:LabMechanismDriver

[neutron.service_plugins]
lab_router = lab_neutron:LabRouterPlugin

[octavia.api.drivers]
lab = lab_octavia:LabProviderDriver
"""


def database_url(lab: Layout, name: str) -> str:
    return f"mysql+pymysql://root@localhost/{name}?unix_socket={lab.path('mysql.sock')}&charset=utf8mb4"


def _account(lab: Layout, extra: str = "") -> str:
    """The account by which services call each other."""
    return f"""auth_type = password
auth_url = {lab.auth_url()}
username = svc
password = {lab.password}
project_name = service
user_domain_id = default
project_domain_id = default
region_name = {DIRECT}
{extra}"""


def _database(lab: Layout, name: str, section: str = "database") -> str:
    return f"""[{section}]
connection = {database_url(lab, name)}
max_pool_size = 10
max_overflow = 40
"""


def _tokens(lab: Layout) -> str:
    return f"""[keystone_authtoken]
www_authenticate_uri = {lab.auth_url()}
memcache_use_advanced_pool = false
token_cache_time = 300
service_token_roles_required = true
service_token_roles = service
{_account(lab)}"""


def _common(lab: Layout, service: str) -> str:
    """Locks and the log; and the policy, which is read again whenever the file changes."""
    return f"""[oslo_concurrency]
lock_path = {lab.path("state/lock")}
[oslo_policy]
policy_file = {lab.path("etc", service, "policy.yaml")}
"""


def keystone(lab: Layout) -> str:
    # Four rounds: bcrypt at its usual cost is a quarter of a second for each token.
    return f"""[DEFAULT]
log_file = {lab.path("log/keystone.log")}
{_database(lab, "keystone")}
{_common(lab, "keystone")}
[token]
provider = fernet
expiration = 86400
[fernet_tokens]
key_repository = {lab.path("state/fernet")}
[fernet_receipts]
key_repository = {lab.path("state/fernet")}
[credential]
key_repository = {lab.path("state/credential")}
[identity]
password_hash_rounds = 4
[cache]
enabled = true
backend = dogpile.cache.memory
"""


def glance(lab: Layout, venv: Path) -> str:
    return f"""[DEFAULT]
log_file = {lab.path("log/glance.log")}
enabled_backends = file:file
worker_self_reference_url = {lab.url("image")}
{_database(lab, "glance")}
{_common(lab, "glance")}
[glance_store]
default_backend = file
[file]
filesystem_store_datadir = {lab.path("state/images")}
[os_glance_staging_store]
filesystem_store_datadir = {lab.path("state/staging")}
[os_glance_tasks_store]
filesystem_store_datadir = {lab.path("state/tasks")}
[paste_deploy]
flavor = keystone
config_file = {venv}/etc/glance/glance-api-paste.ini
{_tokens(lab)}"""


def placement(lab: Layout) -> str:
    return f"""[DEFAULT]
log_file = {lab.path("log/placement.log")}
{_database(lab, "placement", "placement_database")}
{_common(lab, "placement")}
[api]
auth_strategy = keystone
{_tokens(lab)}"""


def neutron(lab: Layout, venv: Path) -> str:
    # "trunk" would want Open vSwitch; "port_forwarding" loads a second router plugin, and routers then fail with 409.
    # Nova is told of ports at once: that is how a server's addresses come to show its floating IP.
    return f"""[DEFAULT]
log_file = {lab.path("log/neutron.log")}
core_plugin = ml2
service_plugins = lab_router,tag,revisions,timestamp,network_ip_availability,qos,auto_allocate
transport_url = fake://
auth_strategy = keystone
api_paste_config = {venv}/etc/neutron/api-paste.ini
state_path = {lab.path("state/neutron")}
notify_nova_on_port_status_changes = true
notify_nova_on_port_data_changes = true
send_events_interval = 1
dhcp_agent_notification = false
l3_ha = false
enable_dvr = false
rpc_workers = 0
rpc_response_timeout = 5
{_database(lab, "neutron")}
{_common(lab, "neutron")}
[quotas]
quota_network = 100
quota_subnet = 100
quota_port = 2000
quota_router = 10
quota_floatingip = 100
quota_security_group = 200
quota_security_group_rule = 2000
[nova]
{_account(lab)}
[placement]
{_account(lab)}
{_tokens(lab)}"""


ML2 = """[ml2]
type_drivers = flat,vlan,vxlan,local
tenant_network_types = vxlan
mechanism_drivers = lab
extension_drivers = port_security,qos
overlay_ip_version = 4
[ml2_type_flat]
flat_networks = *
[ml2_type_vxlan]
vni_ranges = 1:65535
[securitygroup]
enable_security_group = true
"""


FILTERS = ",".join(
    f"{name}Filter"
    for name in (
        "Compute",
        "ComputeCapabilities",
        "ImageProperties",
        "ServerGroupAntiAffinity",
        "ServerGroupAffinity",
    )
)


def nova(lab: Layout, venv: Path) -> str:
    # Services report in the same process, so a busy lab reports late: service_down_time is generous.
    # Nobody plugs a virtual interface, so there is nothing to wait for (vif_plugging_*). Who names no zone gets "nova",
    # as in many clouds; "zone-b" is never made of real machines.
    return f"""[DEFAULT]
log_file = {lab.path("log/nova.log")}
transport_url = fake://
host = controller
my_ip = 127.0.0.1
state_path = {lab.path("state/nova")}
instances_path = {lab.path("state/nova/instances")}
compute_driver = {DRIVERS[lab.machines]}
concurrency_backend = threading
report_interval = 5
service_down_time = 120
vif_plugging_is_fatal = false
vif_plugging_timeout = 0
max_concurrent_builds = 10
max_concurrent_snapshots = 10
rpc_response_timeout = 120
long_rpc_timeout = 300
update_resources_interval = 600
heal_instance_info_cache_interval = -1
sync_power_state_interval = -1
shelved_offload_time = 0
default_schedule_zone = nova
block_device_allocate_retries_interval = 1
default_log_levels = neutronclient=ERROR,nova.api.openstack.requestlog=WARNING,keystonemiddleware=ERROR,urllib3=WARNING
{_database(lab, "nova_api", "api_database")}
{_database(lab, "nova")}
{_common(lab, "nova")}
[api]
auth_strategy = keystone
[wsgi]
api_paste_config = {venv}/etc/nova/api-paste.ini
[conductor]
workers = 1
[scheduler]
workers = 1
discover_hosts_in_cells_interval = -1
[image_cache]
manager_interval = -1
[filter_scheduler]
track_instance_changes = false
enabled_filters = {FILTERS}
[compute]
resource_provider_association_refresh = 0
[quota]
instances = 1000
cores = 10000
ram = 20000000
key_pairs = 200
server_groups = 100
server_group_members = 1000
metadata_items = 128
[oslo_limit]
{_account(lab)}
[glance]
api_servers = {lab.url("image")}
[placement]
{_account(lab)}
[neutron]
{_account(lab, "default_floating_pool = public")}
service_metadata_proxy = false
[cinder]
catalog_info = block-storage::publicURL
os_region_name = {DIRECT}
{_account(lab)}
[service_user]
send_service_user_token = true
{_account(lab)}
[vnc]
enabled = false
{_tokens(lab)}"""


def cinder(lab: Layout, venv: Path) -> str:
    return f"""[DEFAULT]
log_file = {lab.path("log/cinder.log")}
transport_url = fake://
host = controller
my_ip = 127.0.0.1
state_path = {lab.path("state/cinder")}
api_paste_config = {venv}/etc/cinder/api-paste.ini
resource_query_filters_file = {venv}/etc/cinder/resource_filters.json
auth_strategy = keystone
enabled_backends = lab
glance_api_servers = {lab.url("image")}
public_endpoint = {lab.url("volume")}
report_interval = 5
service_down_time = 120
scheduler_driver_init_wait_time = 5
periodic_fuzzy_delay = 0
quota_volumes = 500
quota_snapshots = 500
quota_gigabytes = 500000
{_database(lab, "cinder")}
{_common(lab, "cinder")}
[lab]
volume_driver = lab_cinder.LabVolumeDriver
volume_backend_name = lab
[coordination]
backend_url = file://{lab.path("state/cinder")}
[nova]
{_account(lab)}
[service_user]
send_service_user_token = true
{_account(lab)}
{_tokens(lab)}"""


def octavia(lab: Layout) -> str:
    # Everybody in a project may have load balancers, by policy.yaml; by default only who has a role of Octavia's own.
    return f"""[DEFAULT]
log_file = {lab.path("log/octavia.log")}
transport_url = fake://
[api_settings]
auth_strategy = keystone
enabled_provider_drivers = lab:as if there were appliances
default_provider_driver = lab
{_database(lab, "octavia")}
{_common(lab, "octavia")}
[controller_worker]
network_driver = allowed_address_pairs_driver
compute_driver = compute_noop_driver
[service_auth]
{_account(lab)}
[neutron]
{_account(lab)}
{_tokens(lab)}"""


OCTAVIA_POLICY = """load-balancer:read: "is_admin:True or project_id:%(project_id)s"
load-balancer:write: "is_admin:True or project_id:%(project_id)s"
"""

FOLDERS = (
    "etc/placement",
    "etc/glance",
    "log",
    "state/images",
    "state/staging",
    "state/tasks",
    "state/lock",
    "state/neutron",
    "state/nova/instances",
    "state/cinder",
    "state/volumes",
    "python/vcluster_lab-0.dist-info",
)


def write(lab: Layout, venv: Path) -> None:
    """Write all configuration below the lab's folder, which is its owner's alone: the files hold the password."""
    for folder in FOLDERS:
        lab.path(folder).mkdir(parents=True, exist_ok=True)
    for folder in ("state/fernet", "state/credential"):
        lab.path(folder).mkdir(mode=0o700, parents=True, exist_ok=True)
    files = {
        "etc/keystone/keystone.conf": keystone(lab),
        "etc/glance/glance-api.conf": glance(lab, venv),
        "etc/placement/placement.conf": placement(lab),
        "etc/neutron/neutron.conf": neutron(lab, venv),
        "etc/neutron/ml2_conf.ini": ML2,
        "etc/nova/nova.conf": nova(lab, venv),
        "etc/cinder/cinder.conf": cinder(lab, venv),
        "etc/octavia/octavia.conf": octavia(lab),
        "python/vcluster_lab-0.dist-info/METADATA": "Metadata-Version: 2.1\nName: vcluster-lab\nVersion: 0\n",
        "python/vcluster_lab-0.dist-info/entry_points.txt": ENTRY_POINTS,
    }
    for name, text in files.items():
        file = lab.path(name)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    for service in ("keystone", "glance", "placement", "neutron", "nova", "cinder"):
        lab.path("etc", service, "policy.yaml").write_text("{}\n")
    lab.path("etc/octavia/policy.yaml").write_text(OCTAVIA_POLICY)
    # Nova's WSGI entry looks for it beside nova.conf, whatever api_paste_config says.
    shutil.copy(venv / "etc/nova/api-paste.ini", lab.path("etc/nova/api-paste.ini"))


def catalogue(lab: Layout) -> dict[str, tuple[str, str, str, str]]:
    """What Keystone's catalogue says: service -> its type, its name, its URL in region RegionOne and in Faulty."""
    types = {
        "identity": ("identity", "keystone"),
        "image": ("image", "glance"),
        "placement": ("placement", "placement"),
        "compute": ("compute", "nova"),
        "network": ("network", "neutron"),
        "volume": ("block-storage", "cinder"),
    }
    return {
        service: (kind, name, lab.url(service) + PATHS[service], lab.proxy_url(service) + PATHS[service])
        for service, (kind, name) in types.items()
    }

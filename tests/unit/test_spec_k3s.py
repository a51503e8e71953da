"""The spec of a Kubernetes cluster: what is wrong is told with its line and a remedy; what is right survives."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vcluster.errors import Problem, SpecError
from vcluster.k3s_checks import COMPONENTS, DEFAULT_VERSION
from vcluster.spec import ClusterSpec
from vcluster.spec_k3s import FileSpec, K3sSpec, OpenStackSpec, RegistrySpec
from vcluster.spec_secret import SecretRef

OK = "name: demo\ncloud: cloud9\nscheduler: k3s\n"
SHA = "0123456789abcdef" * 4
ID = "5a1c3b1f6d4e4f0e9b0f7c1f2d3e4a5b"
SECRET = "hunter2-hunter2"
CREDENTIAL = f"application_credential_id: {ID}, application_credential_secret: {{env: S}}"


class Bad(NamedTuple):
    """A spec and what is said about it, all that is wrong in its line."""

    id: str
    text: str
    line: int
    where: str
    message: str
    remedy: str = ""


def k3s(id: str, text: str, where: str, message: str, remedy: str = "") -> Bad:  # noqa: A002
    """What is wrong in the section."""
    return Bad(id, f"{OK}k3s:\n  {{{text}}}\n", 5, f"k3s.{where}", message, remedy)


def more(id: str, text: str, where: str, message: str, remedy: str = "") -> Bad:  # noqa: A002
    """What is wrong beside it."""
    return Bad(id, f"{OK}{text}\n", 4, where, message, remedy)


def slurm(id: str, text: str, where: str, message: str, remedy: str = "") -> Bad:  # noqa: A002
    """What Slurm has no use for."""
    return Bad(id, f"name: demo\ncloud: cloud9\n{text}\n", 3, where, message, remedy)


VERSION = [
    k3s("version-number", "version: 1.36", "version", "must be a version, got 1.36", 'write "1.36"'),
    k3s("version-short", "version: v1.36.5", "version", "must be a version of k3s, got 'v1.36.5'", DEFAULT_VERSION),
    k3s("version-bare", "version: 1.36.5+k3s1", "version", "must be a version of k3s", DEFAULT_VERSION),
    k3s("version-rke2", "version: v1.36.5+rke2r1", "version", "must be a version of k3s", DEFAULT_VERSION),
    k3s("version-latest", "version: latest", "version", "must be a version of k3s, got 'latest'"),
    k3s("version-shell", "version: 'v1.36.5+k3s1; reboot'", "version", "must be a version of k3s"),
    k3s("version-newline", 'version: "v1.36.5+k3s1\\n"', "version", "must be a version of k3s"),
    k3s("version-old", "version: v1.20.4+k3s1", "version", "too old: the oldest that was tried is v1.21", "take v1.36"),
    k3s(
        "version-unknown",
        "version: v1.30.0+k3s1",
        "version",
        "nothing is known of v1.30.0+k3s1 to check its binary by",
        "binary: {sha256: …}",
    ),
    k3s("wireguard-old", f"version: v1.22.1+k3s1, binary: {{sha256: {SHA}}}, flannel_backend: wireguard-native",
        "flannel_backend", "wireguard-native is not in v1.22.1+k3s1, it came with v1.23", "take vxlan"),
    k3s("registry-old", f"version: v1.28.1+k3s1, binary: {{sha256: {SHA}}}, embedded_registry: true",
        "embedded_registry", "is not in v1.28.1+k3s1, it came with v1.29", "leave it out, or take a newer"),
]  # fmt: skip

FILES = [
    k3s("binary-unchecked", "binary: 'https://a.org/k3s'", "binary.sha256", "what comes from an address must be"),
    k3s("binary-url", "binary: {url: 'https://a.org/k3s'}", "binary.sha256", "is missing", "sha256sum prints it"),
    k3s("binary-ftp", "binary: 'ftp://a.org/k3s'", "binary.source", "must be an http:// or https:// address, got"),
    k3s("binary-password", f"binary: {{url: 'https://u:{SECRET}@a.org/k3s', sha256: {SHA}}}", "binary.url",
        "must be an address without a user or password"),
    k3s("binary-sha", "binary: {path: k3s, sha256: abc}", "binary.sha256", "must be a SHA-256"),
    k3s("binary-key", "binary: {file: k3s}", "binary.file", "unknown key", "known: source, sha256"),
    k3s("binary-number", "binary: 7", "binary", "must be a mapping of keys to values, got 7"),
    k3s("images-text", "images: ./images.tar", "images", "must be a list of files, got './images.tar'", "write [./im"),
    k3s("images-empty", "images: [{}]", "images[0].source", "is missing", "address, or its path"),
    k3s("images-blank", "images: ['']", "images[0].source", "is missing", "address, or its path"),
    k3s("images-sha-only", f"images: [./k.tar, {{sha256: {SHA}}}]", "images[1].source", "is missing"),
    k3s("images-twins", "images: [/a/i.tar, /b/i.tar]", "images[1].source", "another archive", "another name"),
    k3s("images-kind", "images: [/a/i.img]", "images[0].source", "k3s would not take an archive called", ".tar.zst"),
    k3s("images-space", "images: ['/a/my images.tar']", "images[0].source", "k3s would not take", "letters"),
    k3s("images-unchecked", "images: ['https://a.org/i.tar']", "images[0].sha256", "what comes from an address"),
]  # fmt: skip

NETWORK = [
    k3s("components-text", "components: coredns", "components", "must be a list of coredns, local", "[coredns]"),
    k3s("components-typo", "components: [coredns, traefic]", "components[1]", "must be one of k3s' components, got 't",
        "did you mean traefik?"),
    k3s("components-far", "components: [helm]", "components[0]", "components, got 'helm'", "there are: coredns, local"),
    k3s("components-number", "components: [7]", "components[0]", "must be one of k3s' components, got 7"),
    k3s("backend-openstack", "flannel_backend: host-gw", "flannel_backend", "must not be host-gw on Open", "vxlan"),
    k3s("backend", "flannel_backend: calico", "flannel_backend", "must be wireguard-native, vxlan or host-gw, got"),
    k3s("pods-word", "pod_network: big", "pod_network", "must be an IPv4 network, got 'big'", "as in 10.42.0.0/16"),
    k3s("pods-host", "pod_network: 10.99.0.1/16", "pod_network", "must be an IPv4 network", "as in 10.99.0.0/16"),
    k3s("pods-six", "pod_network: 'fd00::/56'", "pod_network", "must be an IPv4 network, got 'fd00::/56'"),
    k3s("pods-small", "pod_network: 10.42.0.0/24", "pod_network", "must be a private network of /8 to /20"),
    k3s("pods-huge", "pod_network: 0.0.0.0/0", "pod_network", "must be a private network of /8 to /20"),
    k3s("pods-public", "pod_network: 8.8.0.0/16", "pod_network", "must be a private network of /8 to /20"),
    k3s("pods-loopback", "pod_network: 127.0.0.0/8", "pod_network", "must be a private network of /8 to /20"),
    k3s("pods-link", "pod_network: 169.254.0.0/16", "pod_network", "must be a private network of /8 to /20"),
    k3s("services-reserved", "service_network: 240.0.0.0/8", "service_network", "must be a private network"),
    k3s("overlap-default", "pod_network: 10.43.0.0/16", "service_network", "overlaps pod_network, 10.43.0.0/16",
        "take another one"),
    k3s("overlap-inside", "pod_network: 10.0.0.0/8, service_network: 10.96.0.0/12", "service_network", "overlaps pod_"),
    k3s("api-text", "api_from: 0.0.0.0/0", "api_from", "must be a list of networks", "write [0.0.0.0/0]"),
    k3s("api-empty", "api_from: []", "api_from", "must not be empty"),
    k3s("api-name", "api_from: [campus.example.org]", "api_from[0]", "must be a network such as 192.0.2.0/24"),
    k3s("san-url", "tls_san: ['https://k8s.example.org']", "tls_san[0]", "must be a host's name or address", "as in"),
    k3s("san-star", "tls_san: ['*.example.org']", "tls_san[0]", "must be a host's name or address, got '*.exam"),
    k3s("san-text", "tls_san: k8s.example.org", "tls_san", "must be a list of names", "write [k8s.example.org]"),
    k3s("flag", "embedded_registry: please", "embedded_registry", "must be true or false, got 'please'"),
    k3s("unknown", "cni: calico", "cni", "unknown key", "known: version"),
    k3s("typo", "component: []", "component", "unknown key", "did you mean components?"),
]  # fmt: skip

REGISTRIES = [
    k3s("registry-text", "registries: docker.io", "registries", "must be a list of registries"),
    k3s("registry-nameless", "registries: [{mirrors: []}]", "registries[0].name", "is missing"),
    k3s("registry-url", "registries: [{name: 'https://docker.io'}]", "registries[0].name", "must be a registry's host",
        "without https://"),
    k3s("registry-path", "registries: [{name: docker.io/library}]", "registries[0].name", "must be a registry's host"),
    k3s("registry-mirror", "registries: [{name: docker.io, mirrors: [mirror.org]}]", "registries[0].mirrors[0]",
        "must be an http:// or https:// address"),
    k3s("registry-mirrors", "registries: [{name: docker.io, mirrors: 'https://a.org'}]", "registries[0].mirrors",
        "must be a list of addresses"),
    k3s("registry-account", "registries: [{name: docker.io, username: me}]", "registries[0].password",
        "is missing: username is given", "add it, or leave both out"),
    k3s("registry-password", "registries: [{name: docker.io, password: {env: P}}]", "registries[0].username",
        "is missing: password is given"),
    k3s("registry-secret", f"registries: [{{name: docker.io, username: me, password: {SECRET}}}]",
        "registries[0].password", "a secret does not belong into the spec", "write where it is found"),
    k3s("registry-star", "registries: [{name: '*', username: me, password: {env: P}}]", "registries[0].username",
        "means nothing with name *", "name the registry"),
    k3s("registry-twice", "registries: [{name: docker.io}, {name: docker.io}]", "registries[1].name",
        "two entries are called 'docker.io'", "make them one"),
    k3s("registry-ca", "registries: [{name: docker.io, ca: nonsense.pem}]", "registries[0].ca", "there is no file"),
]  # fmt: skip

OPENSTACK = [
    k3s("cloud-secret", f"openstack: {{auth_url: 'https://a.org', application_credential_id: {ID}}}",
        "openstack.application_credential_secret", "is missing: auth_url is given", "all three belong together"),
    k3s("cloud-id", "openstack: {auth_url: 'https://a.org', application_credential_secret: {env: S}}",
        "openstack.application_credential_id", "is missing: auth_url is given"),
    k3s("cloud-url", f"openstack: {{{CREDENTIAL}}}", "openstack.auth_url", "is missing: application_credential_id is"),
    k3s("cloud-name", "openstack: {auth_url: 'https://a.org', application_credential_id: mine, "
        "application_credential_secret: {env: S}}", "openstack.application_credential_id",
        "must be the id of an application credential, got 'mine'", "32 hexadecimal digits"),
    k3s("cloud-shown", f"openstack: {{auth_url: 'https://a.org', application_credential_id: {ID}, "
        f"application_credential_secret: {SECRET}}}", "openstack.application_credential_secret",
        "a secret does not belong into the spec"),
    k3s("cloud-region", f"openstack: {{auth_url: 'https://a.org', {CREDENTIAL}, region: 'a b'}}", "openstack.region",
        "must be a region's name, got 'a b'", "letters, digits"),
    k3s("cloud-text", "openstack: true", "openstack", "must be a mapping of keys to values"),
    Bad("cloud-local", f"name: demo\ncloud: local\nscheduler: k3s\nk3s:\n  openstack: {{auth_url: 'https://a.org', "
        f"{CREDENTIAL}}}\n", 5, "k3s.openstack", "means nothing on the local cloud", "leave it out"),
]  # fmt: skip

MACHINES = [
    more("count-two", "head: {count: 2}", "head.count", "must be 1 or 3, got 2", "two are no safer than one"),
    more("count-none", "head: {count: 0}", "head.count", "must be 1 or 3, got 0"),
    more("count-five", "head: {count: 5}", "head.count", "must be 1 or 3, got 5"),
    more("count-word", "head: {count: three}", "head.count", "must be 1 or 3, got 'three'"),
    more("labels-list", "workers: [{labels: [a=b]}]", "workers[0].labels", "must be a mapping"),
    more("label-number", "workers: [{labels: {disk: 1}}]", "workers[0].labels", "disk must be a label's value, got 1"),
    more("label-space", "workers: [{labels: {disk: 'a b'}}]", "workers[0].labels", "got 'a b'", "letters, digits"),
    more("label-key", "workers: [{labels: {'-disk': a}}]", "workers[0].labels", "must have labels as keys, got '-d"),
    more("label-ours", "workers: [{labels: {vcluster/group: a}}]", "workers[0].labels",
         "vcluster/group is a label that Kubernetes or vcluster sets itself", "choose another prefix"),
    more("label-theirs", "workers: [{labels: {node-role.kubernetes.io/worker: ''}}]", "workers[0].labels",
         "is a label that Kubernetes or vcluster sets"),
    more("taints-text", "workers: [{taints: 'a=b:NoSchedule'}]", "workers[0].taints", "must be a list of taints"),
    more("taint-effect", "workers: [{taints: ['a=b:NoSchedul']}]", "workers[0].taints[0]", "must be a taint, got 'a=b:",
         "as in dedicated=classes:NoSchedule"),
    more("taint-bare", "workers: [{taints: [a=b]}]", "workers[0].taints[0]", "must be a taint, got 'a=b'"),
    more("users", "users: [{name: al}]", "users", "means nothing with scheduler k3s", "by its own means"),
    more("slurm", "slurm: {accounting: false}", "slurm", "means nothing with scheduler k3s", "take scheduler: slurm"),
    Bad("hub-traefik", f"{OK}jupyterhub: {{}}\nk3s:\n  components: [coredns, servicelb]\n", 6, "k3s.components",
        "must have traefik: JupyterHub is reached by it", "add it, or leave components out"),
    Bad("hub-dns", f"{OK}jupyterhub: {{}}\nk3s:\n  components: [traefik, servicelb]\n", 6, "k3s.components",
        "must have coredns", "add it"),
    slurm("slurm-k3s", "k3s: {version: v1.36.5+k3s1}", "k3s", "means nothing with scheduler slurm", "scheduler: k3s"),
    slurm("slurm-count", "head: {count: 3}", "head.count", "must be 1 with scheduler slurm", "or take scheduler: k3s"),
    slurm("slurm-labels", "workers: [{labels: {a: b}}]", "workers[0].labels", "means nothing with scheduler slurm"),
    slurm("slurm-taints", "workers: [{taints: ['a:NoExecute']}]", "workers[0].taints", "means nothing with scheduler"),
]  # fmt: skip

TABLE = [*VERSION, *FILES, *NETWORK, *REGISTRIES, *OPENSTACK, *MACHINES]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "k3s").write_bytes(b"program")
    return tmp_path


def problems(folder: Path, text: str) -> tuple[Problem, ...]:
    (folder / "spec.yaml").write_text(text)
    with pytest.raises(SpecError) as caught:
        ClusterSpec.load(folder / "spec.yaml")
    assert SECRET not in str(caught.value)
    return caught.value.problems


def test_the_table_is_long() -> None:
    assert len(TABLE) >= 80
    assert len({bad.id for bad in TABLE}) == len(TABLE)


@pytest.mark.parametrize("bad", TABLE, ids=lambda bad: bad.id)
def test_bad_kubernetes(folder: Path, bad: Bad) -> None:
    found = problems(folder, bad.text)
    matching = [p for p in found if p.where == bad.where and bad.message in p.message and bad.remedy in p.remedy]
    assert matching, "\n".join(map(str, found))
    assert matching[0].line == bad.line
    assert matching[0].column >= 1
    assert len(found) == 1, "\n".join(map(str, found))
    assert all(text.isprintable() for problem in found for text in str(problem).splitlines())


# What is right -------------------------------------------------------------------------------------------------------


def kubernetes(text: str = "{}", cloud: str = "cloud9", folder: Path | None = None) -> K3sSpec:
    return ClusterSpec.from_yaml(f"name: demo\ncloud: {cloud}\nscheduler: k3s\nk3s: {text}\n", folder=folder).kubernetes


def test_nothing_is_needed() -> None:
    bare = ClusterSpec.from_yaml(OK)
    assert (bare.k3s, bare.peers, bare.kubernetes) == (None, (), K3sSpec())
    assert ClusterSpec.from_yaml(f"{OK}k3s:\n  # version: x\n").kubernetes == K3sSpec()
    assert bare.kubernetes.program[1] == "d73847bcd3c5fccef0115b372e2f9a91f3032dc84bbf71518a4617565294d313"
    assert ClusterSpec.from_yaml(f"{OK}head: {{count: 3}}\n").peers == ("head-2", "head-3")
    assert ClusterSpec.from_yaml(f"{OK}head: {{count: 1}}\n").peers == ()


def test_another_version_is_taken_with_its_checksum_or_from_elsewhere(folder: Path) -> None:
    release = kubernetes(f"{{version: v1.30.0+k3s1, binary: {{sha256: {SHA}}}}}")
    assert release.program == ("https://github.com/k3s-io/k3s/releases/download/v1.30.0%2Bk3s1/k3s", SHA)
    mirror = kubernetes(f"{{version: v1.30.0+k3s1, binary: {{url: 'https://a.org/k3s', sha256: {SHA}}}}}")
    assert mirror.program == ("https://a.org/k3s", SHA)
    here = kubernetes("{version: v1.30.0+k3s1, binary: k3s}", folder=folder)
    assert here.program[0] == str(folder / "k3s")
    assert here.binary.local


def test_versions_are_compared_by_their_numbers() -> None:
    texts = ("v1.21.2+k3s1", "v1.22.17+k3s1", "v1.23.0+k3s1", "v1.36.5+k3s10")
    found = [kubernetes(f"{{version: {text}, binary: {{sha256: {SHA}}}}}") for text in texts]
    assert [each.numbers for each in found] == [(1, 21, 2, 1), (1, 22, 17, 1), (1, 23, 0, 1), (1, 36, 5, 10)]
    assert [each.backend for each in found] == ["vxlan", "vxlan", "wireguard-native", "wireguard-native"]


@pytest.mark.parametrize("labels", [{"a": ""}, {"example.org/a_b.c": "D-e.f"}, {"disk": "fast", "x.notk8s.org/y": "1"}])
def test_labels_that_are_right(labels: dict[str, str]) -> None:
    raw = {"name": "demo", "cloud": "x", "scheduler": "k3s", "workers": [{"labels": labels}]}
    assert ClusterSpec.model_validate(raw).workers[0].labels == labels


@pytest.mark.parametrize("taint", ["a:NoExecute", "a=:NoSchedule", "example.org/a=b.c:PreferNoSchedule"])
def test_taints_that_are_right(taint: str) -> None:
    raw = {"name": "demo", "cloud": "x", "scheduler": "k3s", "workers": [{"taints": [taint]}]}
    assert ClusterSpec.model_validate(raw).workers[0].taints == (taint,)


# Any -----------------------------------------------------------------------------------------------------------------

WORD = st.from_regex(r"[a-z][a-z0-9]{0,8}", fullmatch=True)
HOSTS = st.builds("{}.example.org".format, WORD)
URLS = st.builds("https://{}".format, HOSTS)
CHECKSUMS = st.from_regex(r"[0-9a-f]{64}", fullmatch=True)
SECRETS = st.builds(lambda name: SecretRef(env=name.upper()), WORD)
REMOTE_FILES = st.builds(lambda url, sha: FileSpec(source=f"{url}/k3s", sha256=sha), URLS, CHECKSUMS)
ARCHIVES = st.builds(
    lambda url, name, sha: FileSpec(source=f"{url}/{name}", sha256=sha),
    URLS,
    st.sampled_from(["images.tar", "k3s-airgap-images-amd64.tar.zst", "more.tgz"]),
    CHECKSUMS,
)
VERSIONS = st.builds("v1.{}.{}+k3s{}".format, st.integers(32, 40), st.integers(0, 20), st.integers(1, 3))


def registry(name: str, mirrors: list[str], account: tuple[str, SecretRef] | None) -> RegistrySpec:
    username, password = account or (None, None)
    return RegistrySpec(name=name, mirrors=tuple(mirrors), username=username, password=password)


KUBERNETES = st.builds(
    K3sSpec,
    version=VERSIONS,
    binary=REMOTE_FILES | st.builds(lambda sha: FileSpec(sha256=sha), CHECKSUMS),
    images=st.lists(ARCHIVES, max_size=2, unique_by=lambda file: file.source.rpartition("/")[2]).map(tuple),
    components=st.none() | st.sets(st.sampled_from(COMPONENTS)).map(tuple),
    flannel_backend=st.sampled_from([None, "vxlan", "wireguard-native"]),
    pod_network=st.integers(0, 99).map("10.{}.0.0/16".format),
    service_network=st.integers(100, 255).map("10.{}.0.0/16".format),
    api_from=st.none() | st.just(("192.0.2.0/24", "2001:db8::/32")),
    tls_san=st.lists(HOSTS, max_size=3).map(tuple),
    registries=st.lists(
        st.builds(registry, HOSTS, st.lists(URLS, max_size=2), st.none() | st.tuples(WORD, SECRETS)),
        max_size=3,
        unique_by=lambda each: each.name,
    ).map(tuple),
    embedded_registry=st.booleans(),
    openstack=st.just(OpenStackSpec())
    | st.builds(
        OpenStackSpec,
        auth_url=URLS,
        application_credential_id=st.from_regex(r"[0-9a-f]{32}", fullmatch=True),
        application_credential_secret=SECRETS,
        region=st.none() | WORD,
        load_balancers=st.booleans(),
        volumes=st.booleans(),
    ),
)


@given(made=KUBERNETES, servers=st.sampled_from([None, 1, 3]))
@settings(max_examples=60, deadline=None)
def test_round_trip(made: K3sSpec, servers: int | None) -> None:
    raw: dict[str, Any] = {"name": "demo", "cloud": "x", "scheduler": "k3s", "head": {"count": servers}, "k3s": made}
    spec = ClusterSpec.model_validate(raw)
    again = ClusterSpec.from_yaml(spec.to_yaml())
    assert ClusterSpec.model_validate(spec.canonical()) == spec
    assert again == spec
    assert again.digest == spec.digest
    assert again.kubernetes.program == made.program

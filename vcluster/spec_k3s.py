"""The Kubernetes cluster that a spec asks for with ``scheduler: k3s``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from vcluster import k3s_checks as checks
from vcluster import k3s_cross as cross
from vcluster import spec_checks
from vcluster.k3s_checks import DEFAULT_VERSION
from vcluster.spec_base import Flag, Model, Networks, Pem, Text, Url, folder_of, pattern
from vcluster.spec_checks import Trouble
from vcluster.spec_peek import one_source, source_key
from vcluster.spec_secret import Secret
from vcluster.spec_words import Kind

__all__ = ["FileSpec", "K3sSpec", "OpenStackSpec", "RegistrySpec"]

Components = Literal["coredns", "local-storage", "metrics-server", "servicelb", "traefik"]
Backend = Literal["vxlan", "host-gw", "wireguard-native"]


class FileSpec(Model):
    """A file for the machines, from an address that they reach or from this computer, which then hands it to the head.

    `binary: ./k3s` is short for `binary: {source: ./k3s}`; `url` and `path` are taken for `source`.
    """

    source: Annotated[
        Text,
        AfterValidator(lambda value, info: checks.file_source(value, folder_of(info))),
        Kind("address or path"),
    ] = Field(default="", description="Its address, or its path", examples=["./k3s"])
    sha256: Annotated[
        Text, AfterValidator(spec_checks.sha256), pattern(spec_checks.SHA256, empty=True), Kind("checksum")
    ] = Field(
        default="",
        description="Its SHA-256, needed where it comes from an address. Default: as the file is",
        examples=["155c12e9ac22e0f0…"],
    )

    @classmethod
    def _prepare(cls, data: Any) -> Any:
        return super()._prepare(one_source(data))

    @classmethod
    def _written(cls, data: Any) -> Mapping[str, str]:
        return {"source": source_key(data)}

    @classmethod
    def _cross(cls, data: Any) -> list[Trouble]:
        return cross.file(data)

    @model_validator(mode="after")
    def _measured(self) -> FileSpec:
        if self.local and not self.sha256:
            object.__setattr__(self, "sha256", checks.file_sha256(self.source))
        return self

    @property
    def local(self) -> bool:
        """Whether it lies on this computer."""
        return self.source.startswith("/")


class RegistrySpec(Model):
    """A container registry: where its images really come from, and who asks for them."""

    name: Annotated[Text, AfterValidator(checks.registry), pattern(checks.REGISTRY), Kind("host")] = Field(
        description="The registry's host as images name it, or `*` for all that have no entry",
        examples=["docker.io"],
    )
    mirrors: Annotated[tuple[Url, ...], Kind("list of addresses")] = Field(
        default=(),
        description="Where to ask instead, in this order; the registry itself comes last",
        examples=[["https://mirror.example.org"]],
    )
    username: Annotated[Text | None, Kind("name")] = Field(
        default=None, description="The account that pulls", examples=["class"]
    )
    password: Secret = Field(default=None, description="Its password or token", examples=[{"env": "REGISTRY_PASSWORD"}])
    ca: Pem = Field(
        default="", description="The authority of its certificate, a file's name or PEM text", examples=["site-ca.pem"]
    )

    @classmethod
    def _cross(cls, data: Any) -> list[Trouble]:
        return cross.registry(data)


class OpenStackSpec(Model):
    """A credential with which Kubernetes makes load balancers and volumes in the project (OpenStack).

    An application credential that is restricted is enough. Everybody who may make a privileged pod can read it.
    """

    auth_url: Url = Field(
        default="", description="The address of the cloud's Keystone", examples=["https://cloud.example.org:5000/v3"]
    )
    application_credential_id: Annotated[Text | None, BeforeValidator(checks.credential_id), Kind("id")] = Field(
        default=None, description="The credential's id", examples=["5a1c3b1f6d4e4f0e9b0f7c1f2d3e4a5b"]
    )
    application_credential_secret: Secret = Field(
        default=None, description="The credential's secret", examples=[{"env": "OS_APPLICATION_CREDENTIAL_SECRET"}]
    )
    region: Annotated[Text | None, BeforeValidator(checks.region), Kind("name")] = Field(
        default=None, description="The region. Default: the cloud's only one", examples=["IU"]
    )
    load_balancers: Flag = Field(
        default=True, description="Run the cloud-controller-manager: load balancers by Octavia, addresses of nodes"
    )
    volumes: Flag = Field(default=True, description="Run the Cinder CSI driver: a storage class `cinder`")

    @classmethod
    def _cross(cls, data: Any) -> list[Trouble]:
        return cross.openstack(data)

    @property
    def given(self) -> bool:
        """Whether there is a credential."""
        return self.application_credential_id is not None


class K3sSpec(Model):
    """k3s: its version and where it comes from, its network, and what it brings along."""

    version: Annotated[Text, AfterValidator(checks.version), pattern(checks.VERSION), Kind("version")] = Field(
        default=DEFAULT_VERSION,
        description="The release; options that an older one does not know are left out",
        examples=[DEFAULT_VERSION],
    )
    binary: FileSpec = Field(
        default=FileSpec(),
        description="Where its binary comes from. Default: the release's own address, with the checksum that is known "
        "of the default version; for another version give `sha256` here",
    )
    images: Annotated[tuple[FileSpec, ...], Kind("list of files")] = Field(
        default=(),
        description="Archives of container images that every node has from the start, as the release's "
        "`k3s-airgap-images-amd64.tar.zst` for machines without a way out",
        examples=[["./images.tar"]],
    )
    components: Annotated[
        tuple[Components, ...] | None,
        BeforeValidator(checks.components),
        Kind("list of components", f"a list of {', '.join(checks.COMPONENTS)}"),
    ] = Field(
        default=None,
        description="Which of its packaged components run. Default: coredns, local-storage and metrics-server; with "
        "JupyterHub traefik and servicelb too",
        examples=[["coredns", "local-storage"]],
    )
    flannel_backend: Annotated[Backend | None, Kind("backend", "wireguard-native, vxlan or host-gw")] = Field(
        default=None,
        description="How pods' traffic goes between machines. Default: `wireguard-native`, which encrypts it; `vxlan` "
        "before v1.23, which has no other",
        examples=["vxlan"],
    )
    pod_network: Annotated[Text, AfterValidator(checks.pod_network), Kind("network")] = Field(
        default="10.42.0.0/16", description="Addresses of pods", examples=["10.244.0.0/16"]
    )
    service_network: Annotated[Text, AfterValidator(checks.pod_network), Kind("network")] = Field(
        default="10.43.0.0/16", description="Addresses of services", examples=["10.96.0.0/16"]
    )
    api_from: Annotated[Networks | None, Kind("list of networks")] = Field(
        default=None,
        description="Networks from which the Kubernetes API on the head (port 6443) is reached. Default: none: "
        "it is reached through SSH",
        examples=[["192.0.2.0/24"]],
    )
    tls_san: Annotated[tuple[Annotated[Text, AfterValidator(checks.host)], ...], Kind("list of names")] = Field(
        default=(),
        description="Further names of the API in its certificate, beside all names and addresses of the servers",
        examples=[["k8s.example.org"]],
    )
    registries: Annotated[tuple[RegistrySpec, ...], Kind("list of registries")] = Field(
        default=(), description="Mirrors of container registries, and accounts on them"
    )
    embedded_registry: Flag = Field(
        default=False, description="Nodes give each other the images that they have, from v1.29 on", examples=[True]
    )
    openstack: OpenStackSpec = Field(
        default=OpenStackSpec(), description="A credential for load balancers and volumes. Default: none"
    )

    @classmethod
    def _cross(cls, data: Any) -> list[Trouble]:
        return cross.k3s(data)

    @property
    def numbers(self) -> tuple[int, ...]:
        """The version's numbers, to compare with those that brought something: ``(1, 36, 5, 1)``."""
        return checks.numbers(self.version)

    @property
    def backend(self) -> str:
        """``flannel_backend``, or the safest that this version has where it is not set."""
        return self.flannel_backend or ("wireguard-native" if self.numbers >= cross.WIREGUARD else "vxlan")

    @property
    def program(self) -> tuple[str, str]:
        """Where the binary comes from, an address or an absolute path, and its SHA-256."""
        source = self.binary.source or checks.release(self.version)
        return source, self.binary.sha256 or checks.KNOWN.get(self.version, "")

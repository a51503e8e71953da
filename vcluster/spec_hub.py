"""JupyterHub on the head, as the spec asks for it: who may come, what a notebook gets, and what it finds.

Absent, there is no Hub. Secrets are never part of a spec: it says where they are found (:class:`SecretRef`).
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from vcluster import hub_checks as hub
from vcluster import spans
from vcluster import spec_checks as checks
from vcluster import spec_hub_cross as cross
from vcluster.people import EMAIL, read_csv
from vcluster.spec_base import Flag, Model, Networks, SlurmTime, Text, any_size, folder_of, pattern
from vcluster.spec_checks import Trouble
from vcluster.spec_cross import MOST_MACHINES
from vcluster.spec_secret import Secret, SecretRef
from vcluster.spec_words import Kind

__all__ = [
    "AllowSpec",
    "AuthSpec",
    "EnvironmentSpec",
    "HubSpec",
    "IdleSpec",
    "PeopleSpec",
    "ProfileSpec",
    "RepositorySpec",
    "SecretRef",
]

Span = Annotated[
    str,
    BeforeValidator(hub.span),
    pattern(rf"^0$|{spans.SPAN}"),
    Kind("span of time", "a span of time such as 1h, or 0 for never"),
]
OptionalSpan = Annotated[
    str | None,
    BeforeValidator(hub.span),
    pattern(rf"^0$|{spans.SPAN}"),
    Kind("span of time", "a span of time such as 8h, or 0 for never"),
]
Login = Annotated[Text, AfterValidator(hub.person_name), pattern(checks.USER)]
Logins = Annotated[tuple[Login, ...], AfterValidator(hub.each_once), Kind("list of names")]
Words = Annotated[tuple[Annotated[Text, AfterValidator(hub.word)], ...], Kind("list of names")]


class AllowSpec(Model):
    """Who of `people` and `users` is let in. Nobody gets an account by logging in."""

    users: Flag = Field(default=True, description="Everybody. Default: true, unless another rule below is given")
    organizations: Words = Field(
        default=(), description="Only members of one of these (`github`)", examples=[["example-lab"]]
    )
    groups: Words = Field(
        default=(), description="Only members of one of these (`globus`: group ids, `oidc`)", examples=[["workshop"]]
    )
    domains: Words = Field(
        default=(),
        description="Only those whose e-mail address is in one of these (`cilogon`, `globus`, `oidc`)",
        examples=[["example.edu"]],
    )

    @classmethod
    def _prepare(cls, data: Any) -> Any:
        return cross.users_unless_ruled(super()._prepare(data))


class AuthSpec(Model):
    """How people log in."""

    method: Annotated[
        Literal["shared-password", "native", "firstuse", "github", "cilogon", "globus", "oidc", "pam"],
        Kind("method", f"one of {', '.join(cross.METHODS)}"),
    ] = Field(
        default="shared-password",
        description="`shared-password`: one password for the class; `native`: people sign up, an admin lets them in; "
        "`firstuse`: the first password that somebody types is theirs; `github`, `cilogon`, `globus`, `oidc`: an "
        "identity provider; `pam`: the passwords of the head's accounts",
        examples=["github"],
    )
    password: Secret = Field(
        default=None,
        description="The class's password (`shared-password`), at least 8 characters. Default: made, and shown once",
        examples=[{"env": "CLASS_PASSWORD"}],
    )
    admin_password: Secret = Field(
        default=None,
        description="With `shared-password` and `firstuse` that of instructors and admins; with `native` and `pam` "
        "one with which admins always get in. At least 12 characters. Default: made, and shown once",
        examples=[{"file": "admin.secret"}],
    )
    client_id: Annotated[Text | None, AfterValidator(hub.client_id), pattern(hub.CLIENT_ID), Kind("text")] = Field(
        default=None, description="What the identity provider calls this Hub", examples=["Ov23liXXXXXXXXXXXXXX"]
    )
    client_secret: Secret = Field(
        default=None,
        description="The secret that the identity provider gave with `client_id`",
        examples=[{"env": "GITHUB_CLIENT_SECRET"}],
    )
    allow: AllowSpec = Field(default=AllowSpec(), description="Who is let in")
    options: Annotated[dict[str, str], BeforeValidator(hub.options), Kind("mapping of texts")] = Field(
        default={},
        description="What the identity provider needs. `oidc`: `issuer`, or `authorize_url`, `token_url` and "
        "`userdata_url`; `scope`, `username_claim`, `groups_claim`, `login_service` (its name for people); `cilogon`: "
        "`idps` (required), `username_claim`; `globus`: `identity_provider`; `github`: `url` of an Enterprise server",
        examples=[{"issuer": "https://login.example.edu"}],
    )

    @classmethod
    def _cross(cls, data: Any) -> list[Trouble]:
        return cross.auth(data)


class PeopleSpec(Model):
    """The class: accounts with the same UID and home directory on every machine."""

    csv: Annotated[
        Text | None,
        AfterValidator(lambda value, info: read_csv(value, folder_of(info))),
        Kind("file's name or CSV text"),
    ] = Field(
        default=None,
        description="People by name: a file, or its text. A first line may name the columns `name`, `email`, `key`, "
        "`login` (what the identity provider calls them); without one they are name, e-mail address, SSH key",
        examples=["class.csv"],
    )
    count: Annotated[int, Field(strict=True, ge=0, le=MOST_MACHINES), Kind("whole number")] = Field(
        default=0, description="How many nameless accounts: `student-001`, `student-002`, …", examples=[127]
    )
    prefix: Annotated[Text, AfterValidator(hub.prefix), pattern(hub.PREFIX), Kind("name")] = Field(
        default="student", description="How their names begin", examples=["guest"]
    )
    quota: Annotated[int | None, BeforeValidator(hub.quota), any_size(hub.LEAST_QUOTA), Kind("size")] = Field(
        default=None,
        description="How much each of all these may store; the head's disk must be ext4, as Debian's and Ubuntu's "
        "images have it. With k3s: of a volume, or of the worker's disk. Default: no limit; with k3s 5G",
        examples=["5G"],
    )

    @classmethod
    def _cross(cls, data: Any) -> list[Trouble]:
        return cross.class_of(data)


class ProfileSpec(Model):
    """What one notebook gets: the limits of its Slurm job. With more than one profile, people choose."""

    name: Annotated[Text, AfterValidator(hub.profile_name), pattern(checks.NAME), Kind("name")] = Field(
        default="standard", description="Lower-case letters, digits, hyphens", examples=["large"]
    )
    description: Annotated[Text, AfterValidator(hub.line), Kind("text")] = Field(
        default="", description="What people read when they choose", examples=["4 CPUs for the last exercise"]
    )
    cpus: Annotated[int, Field(strict=True, ge=1, le=1024), Kind("whole number")] = Field(
        default=1, description="Processors", examples=[2]
    )
    memory: Annotated[int, BeforeValidator(hub.notebook_memory), any_size(hub.LEAST_NOTEBOOK), Kind("size")] = Field(
        default=1024, description="Memory; a kernel that wants more is ended", examples=["2G"]
    )
    time: SlurmTime = Field(default="8:00:00", description="How long a notebook may run", examples=["2:00:00"])
    gpus: Annotated[int, Field(strict=True, ge=0, le=64), Kind("whole number")] = Field(
        default=0, description="GPUs; its worker group's `gpus` says how many there are", examples=[1]
    )
    partition: Annotated[Text | None, AfterValidator(hub.partition), pattern(checks.NAME), Kind("name")] = Field(
        default=None,
        description="The worker group that it runs on. Default: the first; with k3s the first but `core`",
        examples=["cpu"],
    )


class EnvironmentSpec(Model):
    """The Python packages that every notebook finds, beside JupyterLab; on k3s the image that has them."""

    packages: Annotated[tuple[Annotated[Text, AfterValidator(hub.requirement)], ...], Kind("list of packages")] = Field(
        default=("numpy", "scipy", "pandas", "matplotlib"),
        description="Python packages, with versions where wanted",
        examples=[["numpy", "xarray==2025.9.0"]],
    )
    requirements: Annotated[
        Text | None,
        AfterValidator(lambda value, info: hub.requirements(value, folder_of(info))),
        Kind("file's name or text"),
    ] = Field(
        default=None,
        description="A requirements file, or its text; its packages come on top",
        examples=["requirements.txt"],
    )
    image: Annotated[Text | None, AfterValidator(hub.image), pattern(hub.IMAGE), Kind("image")] = Field(
        default=None,
        description="The container image that notebooks run (k3s only), with a tag other than `latest` or a digest. "
        "Default: the chart's own, which has JupyterLab and no packages",
        examples=["quay.io/jupyter/scipy-notebook:2025-09-01"],
    )

    @property
    def every(self) -> tuple[str, ...]:
        """All that pip is to install, one requirement each."""
        return (*self.packages, *(self.requirements or "").splitlines())


class RepositorySpec(Model):
    """Material for the class: a Git repository that everybody finds in the home directory at login."""

    url: Annotated[Text | None, AfterValidator(hub.repository), pattern(checks.URL), Kind("address")] = Field(
        default=None, description="Its address; it must be public", examples=["https://git.example.org/course.git"]
    )
    branch: Annotated[Text | None, AfterValidator(hub.branch), pattern(hub.BRANCH), Kind("name")] = Field(
        default=None, description="Default: the repository's own", examples=["main"]
    )
    folder: Annotated[Text | None, AfterValidator(hub.folder), pattern(hub.FOLDER), Kind("name")] = Field(
        default=None, description="Where it goes in the home. Default: the repository's name", examples=["course"]
    )

    @classmethod
    def _cross(cls, data: Any) -> list[Trouble]:
        return cross.repository(data)


class IdleSpec(Model):
    """When notebooks end by themselves. `0` is never."""

    server: Span = Field(
        default="1h", description="A server that nobody used for so long, 10m at least", examples=["30m"]
    )
    kernel: Span = Field(default="1h", description="A kernel that ran nothing for so long", examples=["2h"])
    longest: OptionalSpan = Field(
        default=None, description="A server of this age, used or not. Default: never", examples=["12h"]
    )

    @classmethod
    def _cross(cls, data: Any) -> list[Trouble]:
        return cross.idle(data)

    @property
    def seconds(self) -> dict[str, int]:
        """``server``, ``kernel`` and ``longest`` in seconds; 0 is never."""
        named = {"server": self.server, "kernel": self.kernel, "longest": self.longest or "0"}
        return {key: round(spans.seconds(value) or 0) for key, value in named.items()}


class HubSpec(Model):
    """JupyterHub on the head; each notebook is a Slurm job, or a pod, on a worker. `jupyterhub:` alone has all
    defaults.
    """

    domain: Annotated[Text | None, AfterValidator(hub.domain), pattern(hub.DOMAIN), Kind("name")] = Field(
        default=None,
        description="A host name that points at the head: certificates come from Let's Encrypt then. Default: the "
        "cluster has a certificate authority of its own",
        examples=["hub.example.org"],
    )
    email: Annotated[Text | None, AfterValidator(hub.email), pattern(EMAIL), Kind("address")] = Field(
        default=None, description="Where Let's Encrypt writes to", examples=["admin@example.org"]
    )
    allow_from: Networks = Field(
        default=("0.0.0.0/0",), description="Networks from which the Hub is reached", examples=[["192.0.2.0/24"]]
    )
    auth: AuthSpec = Field(default=AuthSpec(), description="How people log in")
    people: PeopleSpec = Field(default=PeopleSpec(), description="The class, beside the cluster's `users`")
    instructors: Logins = Field(
        default=(),
        description="Who sees, stops and opens everybody's servers and fills `/srv/shared`; people who are named "
        "nowhere else get accounts",
        examples=[["teacher"]],
    )
    admins: Logins = Field(default=(), description="Instructors who may do anything in the Hub", examples=[["alice"]])
    profiles: Annotated[tuple[ProfileSpec, ...], Kind("list of profiles")] = Field(
        default=(ProfileSpec(),), description="What a notebook gets, the usual one first"
    )
    cpu_oversubscribe: Annotated[int, Field(strict=True, ge=1, le=64), Kind("whole number")] = Field(
        default=1, description="How many notebooks share a processor; memory is never shared", examples=[4]
    )
    environment: EnvironmentSpec = Field(default=EnvironmentSpec(), description="What notebooks find installed")
    storage: Annotated[Literal["none", "cinder", "nfs"] | None, Kind("kind of storage", "none, cinder or nfs")] = Field(
        default=None,
        description="Where files of people are (k3s only). `none`: they go with the notebook; `cinder`: each has a "
        "volume, of `people.quota` or 5G; `nfs`: on the head's disk, where it is the one server. Default: "
        "`cinder` where `k3s.openstack` has a credential for volumes, else `none`",
        examples=["none"],
    )
    repository: RepositorySpec = Field(default=RepositorySpec(), description="Material for the class")
    idle: IdleSpec = Field(default=IdleSpec(), description="When notebooks end by themselves")
    class_size: Annotated[
        int | None, Field(strict=True, ge=1, le=MOST_MACHINES), Kind("whole number", "a whole number")
    ] = Field(
        default=None,
        description="How many notebooks run at once; `vcluster up` refuses what the workers cannot hold. Default: "
        "one for everybody",
        examples=[127],
    )

    @classmethod
    def _cross(cls, data: Any) -> list[Trouble]:
        return cross.hub(data)

"""Where a cluster lives, how it is reached and what it costs: the sections that only some clouds have a use for.

A field that is left out is absent from the spec's canonical form, so that a new version of vcluster with more of them
takes the clusters of an older one for what they are.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field

from vcluster import spans
from vcluster import spec_checks as checks
from vcluster import spec_cross as cross
from vcluster import spec_text as texts
from vcluster.spec_base import Keys, Model, Networks, Text, any_size, folder_of, pattern
from vcluster.spec_checks import RefusedError, Trouble, show
from vcluster.spec_peek import SOURCES, one_source, source_key
from vcluster.spec_words import Kind

__all__ = ["AccessSpec", "ImageName", "ImageSpec", "Lifetime", "OptionalName", "PriceSpec", "RootDisk", "Zone"]

NAME_OR_ID = r"^[A-Za-z0-9][A-Za-z0-9._:()+ /-]{0,127}$"
ZONE = r"^[A-Za-z0-9][A-Za-z0-9._ -]{0,63}$"
ADDRESS = r"^[0-9]{1,3}(\.[0-9]{1,3}){3}$"
JUMP = r"^[A-Za-z_][A-Za-z0-9_.-]{0,31}@[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?(:[0-9]{1,5})?$"
FLAVORS = r"^[A-Za-z0-9*?\[][A-Za-z0-9._:+*?!\[\]-]{0,63}$"
LEAST_LIFETIME = 60
MOST_LIFETIME = 3650 * 86400


def _matching(regex: str, wanted: str, remedy: str) -> AfterValidator:
    compiled = re.compile(regex.removeprefix("^").removesuffix("$"))

    def check(value: str | None) -> str | None:
        if value is not None and not compiled.fullmatch(value):
            raise RefusedError(f"must be {wanted}, got {show(value)}", remedy)
        return value

    return AfterValidator(check)


def _address(value: str | None) -> str | None:
    try:
        return None if value is None else str(ipaddress.IPv4Address(value))
    except ValueError:
        raise RefusedError(
            f"must be an IPv4 address, got {show(value)}", "one that the project has: `openstack floating ip list`"
        ) from None


def _port_of_jump(value: str | None) -> str | None:
    port = value.rpartition(":")[2] if value and ":" in value else ""
    if port and not 1 <= int(port) <= 65535:
        raise RefusedError(f"has a port from 1 to 65535 at its end, got {show(port)}", "leave it out for 22")
    return value


def _lifetime(value: object) -> str | None:
    if value is None:
        return None
    wrong = f"must be a span of time such as 90m, 8h or 2d, got {show(value)}"
    if isinstance(value, int) and not isinstance(value, bool):
        raise RefusedError(wrong, f"write {value}h for hours, {value}d for days")
    length = spans.seconds(value) if isinstance(value, str) and re.fullmatch(spans.SPAN[1:-1], value) else None
    if length is None:
        raise RefusedError(wrong, "numbers with m, h or d after them, as in 1d12h")
    if not LEAST_LIFETIME <= length <= MOST_LIFETIME:
        raise RefusedError(f"must be from one minute to 3650 days, got {show(value)}")
    return spans.spell(length)


def _root_disk(value: object) -> int | None:
    return None if value is None or (value == 0 and not isinstance(value, bool)) else checks.disk(value)


_RESOURCE = "letters, digits and . _ : ( ) + / - and spaces, or the id"
OptionalName = Annotated[
    Text | None, _matching(NAME_OR_ID, "a name or an id", _RESOURCE), pattern(NAME_OR_ID), Kind("name or id")
]
ImageName = Annotated[
    Text | None, _matching(NAME_OR_ID, "an image's name or id", _RESOURCE), pattern(NAME_OR_ID), Kind("name or id")
]
Zone = Annotated[
    Text | None,
    _matching(ZONE, "an availability zone's name", "letters, digits, . _ - and spaces"),
    pattern(ZONE),
    Kind("name"),
]
RootDisk = Annotated[int | None, BeforeValidator(_root_disk), any_size(0), Kind("size")]
Lifetime = Annotated[
    str | None, BeforeValidator(_lifetime), pattern(spans.SPAN), Kind("span of time", "a span of time such as 8h")
]
Price = Annotated[
    float | None,
    Field(strict=True, ge=0, le=1_000_000, allow_inf_nan=False),
    Kind("number", "a number of service units"),
]


class AccessSpec(Model):
    """Who may reach the cluster as its administrator, from where, and on which way."""

    ssh_keys: Keys = Field(
        default=(),
        description="Public keys of administrators, as text or as names of `.pub` files. vcluster has one of its own",
        examples=[["~/.ssh/id_ed25519.pub"]],
    )
    allow_from: Networks = Field(
        default=("0.0.0.0/0",), description="Networks from which SSH to the head is let in", examples=[["192.0.2.0/24"]]
    )
    public_ip: Annotated[bool | None, Field(strict=True), Kind("true or false", "true or false")] = Field(
        default=None,
        description="Whether the head gets a floating IP. Default: true, unless `jump` is given",
        examples=[False],
    )
    floating_ip: Annotated[
        Text | None, AfterValidator(_address), pattern(ADDRESS), Kind("address", "an IPv4 address")
    ] = Field(
        default=None,
        description="A floating IP that the project has already: used, and left there by `down`. Default: a new one",
        examples=["192.0.2.7"],
    )
    jump: Annotated[
        Text | None,
        _matching(JUMP, "a bastion as user@host or user@host:port", "the user's name on it, @, its name or address"),
        AfterValidator(_port_of_jump),
        pattern(JUMP),
        Kind("user@host"),
    ] = Field(
        default=None,
        description="A bastion through which the head is reached when it has no public address",
        examples=["alice@bastion.example.org"],
    )

    @classmethod
    def _cross(cls, data: Any) -> list[Trouble]:
        return cross.access(data)

    @property
    def public(self) -> bool:
        """``public_ip``, or whether there is no other way where it is not set."""
        return self.jump is None if self.public_ip is None else self.public_ip


def _image_forms(schema: dict[str, Any]) -> None:
    # "url" and "path" are other names of "source", and the source alone may stand for the whole section.
    schema["type"] = ["object", "string"]
    schema["properties"] |= {word: dict(schema["properties"]["source"]) for word in SOURCES[1:]}


class ImageSpec(Model):
    """What the machines' disks start from; by default an image that vcluster builds.

    `image: ./debian.qcow2` is short for `image: {source: ./debian.qcow2}`; `url` and `path` are taken for `source`.
    """

    model_config = ConfigDict(json_schema_extra=_image_forms)

    source: Annotated[
        Text,
        AfterValidator(lambda value, info: texts.image_source(value, folder_of(info))),
        Kind("address, path or name"),
    ] = Field(
        default="",
        description="A cloud image's address or path, or the cloud's own name for one",
        examples=["https://mirror.example.org/debian-12-generic-amd64.qcow2"],
    )
    sha256: Annotated[Text, AfterValidator(checks.sha256), pattern(checks.SHA256, empty=True), Kind("checksum")] = (
        Field(
            default="",
            description="The image's SHA-256, needed where it comes from an address",
            examples=["9f86d081884c7d65…"],
        )
    )

    @classmethod
    def _prepare(cls, data: Any) -> Any:
        return super()._prepare(one_source(data))

    @classmethod
    def _written(cls, data: Any) -> Mapping[str, str]:
        return {"source": source_key(data)}

    @classmethod
    def _cross(cls, data: Any) -> list[Trouble]:
        return cross.image(data)


class PriceSpec(Model):
    """What machines of some flavors cost, in the project's service units; the first entry that fits a flavor counts.

    Jetstream2's prices are known: entries here go before them.
    """

    flavor: Annotated[
        Text,
        _matching(FLAVORS, "a flavor's name or pattern", "a name in which * stands for anything, as in m3.*"),
        pattern(FLAVORS),
        Kind("pattern"),
    ] = Field(description="Flavors by name; `*` stands for anything", examples=["m3.*"])
    per_vcpu_hour: Price = Field(
        default=None, description="Units for each virtual CPU and hour; this or `per_hour`", examples=[1]
    )
    per_hour: Price = Field(default=None, description="Units for a whole machine and hour", examples=[3.5])

    @classmethod
    def _cross(cls, data: Any) -> list[Trouble]:
        return cross.price(data)

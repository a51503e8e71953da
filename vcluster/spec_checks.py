"""Checks of single values of a spec: plain functions that return the value in its canonical form or refuse it.

Everything that ends up in a configuration file on a machine passes one of these. Each allows a set of characters
rather than forbidding some, so that no value can end a line, a quotation or an argument and begin another.
"""

from __future__ import annotations

import difflib
import ipaddress
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from fractions import Fraction

__all__ = [
    "Path",
    "RefusedError",
    "Trouble",
    "cloud_name",
    "cluster_name",
    "disk",
    "flavor_name",
    "group_name",
    "memory",
    "nearest",
    "networks",
    "package",
    "seconds",
    "sha256",
    "show",
    "slurm_time",
    "url",
    "user_name",
]

Path = tuple[str | int, ...]
"""Where in a spec: keys and list positions, as ``("workers", 0, "count")``."""

NAME = r"^[a-z][a-z0-9-]{0,29}$"
HIDDEN_PARTITION = "vcluster-probe"
RESERVED_GROUPS = frozenset({"head", "default", "all", "localhost", "vcluster", HIDDEN_PARTITION})
USER = r"^[a-z][a-z0-9_-]{0,30}$"
# Accounts and groups that Debian, Ubuntu and the packages that vcluster installs make: a user of the same name would
# take them over, or the installation of a package would fail on it.
_SYSTEM_ACCOUNTS = """
    root daemon bin sys sync games man lp mail news uucp proxy www-data backup list irc gnats nobody nogroup adm tty
    disk kmem dialout fax voice cdrom floppy tape sudo wheel audio dip operator src shadow utmp video sasl plugdev
    staff users input sgx kvm render crontab netdev ssh sshd messagebus polkitd tss syslog lxd docker uuidd tcpdump
    landscape pollinate fwupd-refresh ntp chrony statd rpc nfs mysql mariadb munge slurm slurmdbd postfix debian
    ubuntu rocky centos fedora admin vcluster caddy jupyterhub jupyterhub-proxy notebooks instructors
"""
RESERVED_USERS = frozenset(_SYSTEM_ACCOUNTS.split())
PACKAGE = r"^[a-z0-9][a-z0-9+.-]{0,98}[a-z0-9+.]$"
FLAVOR = r"^[A-Za-z0-9][A-Za-z0-9._:+-]{0,63}$"
CLOUD = r"^[A-Za-z0-9][A-Za-z0-9._@-]{0,63}$"
SHA256 = r"^[0-9a-fA-F]{64}$"
URL = r"^https?://([A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?(/[A-Za-z0-9._~/%+@:=-]*)?$"
SIZE = r"^[0-9]{1,12}(\.[0-9]{1,3})? ?[KMGTkmgt]([iI][bB]?)?$"
SLURM_TIME = r"^([0-9]+(:[0-9]{1,2}){0,2}|[0-9]+-[0-9]{1,2}(:[0-9]{1,2}){0,2}|UNLIMITED|INFINITE)$"

LONGEST_TIME = 3650 * 86400
LEAST_MEMORY = 256
MOST_MEMORY = 64 * 1024 * 1024
LEAST_DISK = 3
MOST_DISK = 64 * 1024


@dataclass(frozen=True, slots=True)
class Trouble:
    """One thing wrong with a value, before it is known in which file it stands.

    Attributes:
        at: where, relative to whoever found it.
        message: what is wrong.
        remedy: what would be right.
        key: the key itself is wrong, not its value.
        quote: text was wanted and something else came: in YAML, quotes may be all that is missing.
    """

    at: Path
    message: str
    remedy: str = ""
    key: bool = False
    quote: bool = False

    def under(self, path: Path) -> Trouble:
        """The same, seen from further up."""
        return replace(self, at=path + self.at)


class RefusedError(ValueError):
    """A value is refused: one trouble, or several at places inside the value."""

    def __init__(self, message: str = "", remedy: str = "", *, troubles: Iterable[Trouble] = ()) -> None:
        self.troubles = tuple(troubles) or (Trouble((), message, remedy),)
        super().__init__("; ".join(trouble.message for trouble in self.troubles))


def show(value: object) -> str:
    """A value as a message may show it: short, on one line, without control characters, never a private key."""
    if isinstance(value, str):
        if "PRIVATE KEY" in value or "PuTTY-User-Key" in value:
            return "a private key"
        text = repr(value[:200])
        return text if len(text) <= 60 and len(value) <= 200 else f"{text[:57]}…'"
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value) if abs(value) < 1e18 else "a very large number"
    words = {
        "NoneType": "nothing",
        "bool": str(value).lower(),
        "dict": "a mapping",
        "list": "a list",
        "tuple": "a list",
    }
    return words.get(type(value).__name__, f"a {type(value).__name__}")


def nearest(word: str, known: Iterable[str]) -> str:
    """The known word that this one was probably meant to be, or an empty string."""
    close = difflib.get_close_matches(word.lower().replace("-", "_"), list(known), n=1, cutoff=0.6)
    return close[0] if close else ""


def _matches(pattern: str, what: str, remedy: str) -> Callable[[str], str]:
    compiled = re.compile(pattern.removeprefix("^").removesuffix("$"))

    def check(value: str) -> str:
        # fullmatch, because "$" would let a final newline through.
        if not compiled.fullmatch(value):
            raise RefusedError(f"must be {what}, got {show(value)}", remedy)
        return value

    return check


_NAME_REMEDY = "lower-case letters, digits and hyphens, a letter first, at most 30 characters"
cluster_name = _matches(NAME, "a cluster's name", _NAME_REMEDY)
_group = _matches(NAME, "a group's name", _NAME_REMEDY)
_user = _matches(USER, "a user's name", "lower-case letters, digits, _ and -, a letter first, at most 31 characters")
flavor_name = _matches(FLAVOR, "a flavor's name", "small, medium, large, or {cpus: 2, memory: 1G, disk: 6G}")
cloud_name = _matches(CLOUD, "a cloud's name", "local, or a cloud's name in clouds.yaml")
_package = _matches(PACKAGE, "a Debian package's name", "lower-case letters, digits, + . and -, as in gfortran")
_sha256 = _matches(SHA256, "a SHA-256 checksum", "64 hexadecimal digits, as sha256sum prints them")


def sha256(value: str) -> str:
    """A checksum in lower case; empty for none."""
    return _sha256(value).lower() if value else ""


def group_name(value: str) -> str:
    """The name of a worker group, which is also a partition's and the beginning of its machines' names."""
    if _group(value) in RESERVED_GROUPS:
        raise RefusedError(
            f"{value} is a name that vcluster or Slurm uses itself", "choose another, such as cpu or gpu"
        )
    return value


def user_name(value: str) -> str:
    """The name of a user who is not one of the system's own."""
    if _user(value) in RESERVED_USERS or value.startswith(("vcluster", "systemd-")):
        raise RefusedError(f"{value} is the name of an account or group of the system", "choose another name")
    return value


def package(value: str) -> str:
    """A Debian package's name, without version, architecture or apt's own suffixes."""
    if value.endswith("-"):
        raise RefusedError(
            f"must be a Debian package's name, got {show(value)}", "apt would remove what ends in a hyphen"
        )
    if set(value) & set("=/:"):
        remedy = f"write {re.split('[=/:]', value)[0] or 'the name'} alone: versions and releases are not chosen here"
        raise RefusedError(f"must be a Debian package's name, got {show(value)}", remedy)
    return _package(value)


def url(value: str) -> str:
    """An http or https address without a final slash, and without a password; empty for none."""
    if not value:
        return ""
    if re.match(r"https?://[^/]*@", value):
        # The address itself is not shown: what stands before the @ may be a password.
        raise RefusedError(
            "must be an address without a user or password", "every user of the machines can read it there"
        )
    if not re.fullmatch(URL[1:-1], value):
        raise RefusedError(
            f"must be an http:// or https:// address, got {show(value)}", "https://mirror.example.org/debian"
        )
    return value.rstrip("/")


def networks(values: Iterable[object]) -> tuple[str, ...]:
    """CIDRs in canonical form, without overlaps (a firewall's set refuses those).

    Raises:
        RefusedError: with the position of everyone that is not a network.
    """
    found: list[ipaddress.IPv4Network | ipaddress.IPv6Network] = []
    troubles: list[Trouble] = []
    for index, value in enumerate(values):
        try:
            found.append(_network(value))
        except RefusedError as refusal:
            troubles += (trouble.under((index,)) for trouble in refusal.troubles)
    if troubles:
        raise RefusedError(troubles=troubles)
    if not found:
        raise RefusedError("must not be empty: nobody could reach the cluster", "0.0.0.0/0 for everybody")
    four = ipaddress.collapse_addresses(n for n in found if isinstance(n, ipaddress.IPv4Network))
    six = ipaddress.collapse_addresses(n for n in found if isinstance(n, ipaddress.IPv6Network))
    return (*map(str, four), *map(str, six))


def _network(value: object) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    wrong = f"must be a network such as 192.0.2.0/24, got {show(value)}"
    # Only these characters: an IPv6 scope (after %) may hold anything at all, a newline included.
    if not isinstance(value, str) or not re.fullmatch(r"[0-9A-Fa-f:.]+(/[0-9]{1,3})?", value):
        raise RefusedError(wrong)
    try:
        return ipaddress.ip_network(value)
    except ValueError:
        pass
    try:
        right = ipaddress.ip_network(value, strict=False)
    except ValueError:
        raise RefusedError(wrong) from None
    raise RefusedError(f"{value} is an address inside a network, not a network", f"write {right}")


def memory(value: object) -> int:
    """A size in MiB, from ``1G``, ``1.5G``, ``512M``, or a number that is MiB already."""
    return _bounded(
        value,
        _mebibytes(value),
        least=LEAST_MEMORY,
        most=MOST_MEMORY,
        unit="M",
        why="a machine's system does not start",
    )


def memory_per_cpu(value: object) -> int | None:
    """As :func:`memory`, for a job's share: small ones are allowed, nothing is no limit."""
    return (
        None
        if value is None
        else _bounded(value, _mebibytes(value), least=1, most=MOST_MEMORY, unit="M", why="no job starts")
    )


def disk(value: object) -> int:
    """A size in GiB, from ``6G``, ``1T``, or a number that is GiB already."""
    if isinstance(value, int) and not isinstance(value, bool):
        size = value
    else:
        mebibytes = _mebibytes(value)
        if mebibytes % 1024:
            raise RefusedError(f"must be whole GiB, got {show(value)}", f"write {mebibytes // 1024 + 1}G")
        size = mebibytes // 1024
    return _bounded(value, size, least=LEAST_DISK, most=MOST_DISK, unit="G", why="the system does not fit")


def _mebibytes(value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    text = value.strip() if isinstance(value, str) else ""
    number = re.fullmatch(r"([0-9]{1,12}(?:\.[0-9]{1,3})?)\s*([KMGT])(?:i|iB)?", text, re.IGNORECASE | re.ASCII)
    if not number:
        remedy = f"write {text[:-1]}: sizes are powers of 1024" if re.fullmatch(r"[0-9.]+[KMGTkmgt][Bb]", text) else ""
        raise RefusedError(f"must be a size such as 1G, 1.5G or 512M, got {show(value)}", remedy)
    factor = {"K": Fraction(1, 1024), "M": Fraction(1), "G": Fraction(1024), "T": Fraction(1024**2)}
    mebibytes = Fraction(number[1]) * factor[number[2].upper()]
    if mebibytes.denominator != 1:
        raise RefusedError(f"must be whole MiB, got {show(value)}", f"write {int(mebibytes) + 1}M")
    return int(mebibytes)


def _bounded(value: object, size: int, *, least: int, most: int, unit: str, why: str) -> int:
    if size < least:
        meant = f"; {value} without a unit is {value} {unit}iB" if isinstance(value, int) else ""
        raise RefusedError(
            f"must be at least {least}{unit}, got {show(value)}: {why} with less", f"write {least}{unit}{meant}"
        )
    if size > most:
        raise RefusedError(f"must be at most {most}{unit}, got {show(value)}")
    return size


def seconds(value: object) -> int | None:
    """How long a time in Slurm's notation is, in seconds; None for UNLIMITED.

    Raises:
        RefusedError: it is not one of Slurm's formats.
    """
    text = str(value).strip() if isinstance(value, str | int) and not isinstance(value, bool) else ""
    if text.upper() in {"UNLIMITED", "INFINITE"}:
        return None
    wrong = RefusedError(
        f"must be a time as Slurm writes it, got {show(value)}", "minutes, h:mm:ss, d-hh, d-hh:mm:ss or UNLIMITED"
    )
    match = re.fullmatch(r"(?:([0-9]{1,6})-)?([0-9]{1,9})(?::([0-9]{1,2}))?(?::([0-9]{1,2}))?", text)
    if not match:
        raise wrong
    first, second, third = (int(match[n] or 0) for n in (2, 3, 4))
    if match[1] is not None or match[4] is not None:
        hours, minutes, rest = first, second, third
    else:
        hours, minutes, rest = 0, first, second
    if (match[1] is not None and hours > 23) or (match[3] is not None and match[4] is None and second > 59):
        raise wrong
    if (minutes > 59 and (match[1] is not None or match[4] is not None)) or rest > 59:
        raise wrong
    total = int(match[1] or 0) * 86400 + hours * 3600 + minutes * 60 + rest
    if not 60 <= total <= LONGEST_TIME:
        raise RefusedError(f"must be from one minute to 3650 days, got {show(value)}", "UNLIMITED for no limit")
    return total


def slurm_time(value: object) -> str:
    """A time in one of Slurm's notations, as ``h:mm:ss``, ``d-hh:mm:ss`` or ``UNLIMITED``."""
    total = seconds(value)
    if total is None:
        return "UNLIMITED"
    minutes, rest = divmod(total, 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    clock = f"{minutes:02}:{rest:02}"
    return f"{days}-{hours:02}:{clock}" if days else f"{hours}:{clock}"

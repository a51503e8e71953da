#!/bin/sh
# Make sure that Debian packages are installed: debian.sh PACKAGE…
# As root or with sudo that asks for no password it installs what is missing; otherwise it says what to type.
set -eu

say() { printf '%s\n' "$*" >&2; }

if ! command -v dpkg-query >/dev/null 2>&1; then
    case $(uname -s) in
        Darwin) say "note: on macOS install QEMU yourself (brew install qemu); the base image needs a Debian or Ubuntu host." ;;
        *) say "note: this is neither Debian nor Ubuntu; what these packages hold must be installed by hand: $*" ;;
    esac
    exit 0 # "vcluster doctor" tells what is really missing
fi

missing=
for package in "$@"; do
    status=$(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null || true)
    [ "$status" = installed ] || missing="$missing $package"
done
[ -n "$missing" ] || exit 0

if [ "$(id -u)" -eq 0 ]; then
    as_root=env
elif command -v sudo >/dev/null 2>&1 && sudo -n true 2>/dev/null; then
    as_root="sudo -n env"
else
    say "Debian packages are missing, and you are neither root nor allowed to sudo without a password. Please run:"
    say "    sudo apt-get update && sudo apt-get install --no-install-recommends$missing"
    exit 1
fi

log=$(mktemp)
trap 'rm -f "$log"' EXIT
apt() { $as_root DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300 "$@" >"$log" 2>&1; }
install() { apt install -y --no-install-recommends $missing; }

say "Installing Debian packages:$missing"
# A fresh machine has no package lists, an older one has outdated ones: fetch them only then. One repository that
# does not answer makes "update" fail and need not matter to us; whether it does, the second "install" tells.
install || apt update || cat "$log" >&2
install || {
    cat "$log" >&2
    say "apt-get could not install:$missing"
    exit 1
}

#!/usr/bin/env bash
# Builds the throw-away Debian 13 machine in which a real systemd runs the packaged units (make proof-daemon),
# and prints what it holds. It is never written to afterwards: each run lays its own changes over it.
#
#   scripts/machine.sh           build what is missing, then print the versions
#   scripts/machine.sh --where   print the directory of the machine and stop
#
# Everything lands outside the repository, in ${HOLDFAST_CACHE:-${XDG_CACHE_HOME:-~/.cache}/holdfast}/machine:
#   root/    Debian 13 with systemd, certmonger to be measured against, and /opt/holdfast, a virtual environment
#            with what Holdfast imports, but not Holdfast
# Running it again costs next to nothing. A part is built beside its place and renamed into it.
set -euo pipefail
cd "$(dirname "$0")/.."
title=machine
. scripts/debian.sh

packages=systemd,systemd-sysv,dbus,passwd,procps,iproute2,strace,certmonger
packages+=,python3,python3-venv,python3-tpm2-pytss,tpm-udev
packages+=,libtss2-tcti-swtpm0t64,libtss2-tcti-device0t64,libtss2-esys-3.0.2-0t64,libtss2-mu-4.0.1-0t64

cache="${HOLDFAST_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/holdfast}/machine"
root="$cache/root"
building="$cache/root.building.$$"

# What Holdfast imports on a device, as pyproject.toml names it; tpm2-pytss is Debian's own, which is compiled already.
requirements() {
    .venv/bin/python -c 'import tomllib
print("\n".join(tomllib.load(open("pyproject.toml", "rb"))["project"]["dependencies"]))'
}

build() {
    local version
    say "building a Debian 13 machine, a minute or two; it is kept in $root"
    new_debian "$building" "$packages" --aptopt='APT::Install-Recommends "false"'
    version=$(chroot "$building" python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    # No network and no name resolution in there: the wheels are fetched out here.
    mapfile -t wheels < <(requirements)
    .venv/bin/python -m pip download --quiet --only-binary=:all: --python-version "$version" \
        --platform "manylinux_2_28_$(uname -m)" --platform "manylinux_2_17_$(uname -m)" \
        --platform "manylinux2014_$(uname -m)" --dest "$building/opt/wheels" "${wheels[@]}" >&2
    chroot "$building" python3 -m venv --system-site-packages /opt/holdfast
    chroot "$building" /opt/holdfast/bin/python -m pip install --quiet --no-index --find-links /opt/wheels \
        --ignore-installed "${wheels[@]}" >&2
    rm -rf "$building/opt/wheels" "$building/var/cache/apt" "$building/var/lib/apt/lists"
    printf '127.0.0.1 localhost\n::1 localhost\n' >"$building/etc/hosts"
    rm -f "$building/etc/machine-id"
    requirements >"$building/opt/holdfast/requirements"
    rm -rf "$root"
    mv -T "$building" "$root"
}

complete() { [ -r "$root/opt/holdfast/requirements" ] && requirements | cmp -s - "$root/opt/holdfast/requirements"; }

versions() {
    local name
    for name in systemd certmonger python3 python3-tpm2-pytss; do
        printf '%s\t%s\n' "$name" "$(chroot "$root" dpkg-query -W -f '${Version}' "$name")"
    done
}

if [ "${1:-}" = --where ]; then
    printf '%s\n' "$root"
    exit
fi
if [ "$(id -u)" -ne 0 ]; then
    say "a machine is entered with systemd-nspawn: run this script as root"
    exit 1
fi
mkdir -p "$cache"
exec 9>"$cache/lock"
flock 9 # a second run waits for the first and then finds its work done
trap 'rm -rf "$cache"/root.building.*' EXIT
need systemd-nspawn systemd-container || true
if ! complete && need mmdebstrap mmdebstrap; then build; fi
all_there
versions

#!/usr/bin/env bash
# Installs Dogtag CA, an independent judge of our CMC (docs/interop.md), and prints its version.
#
#   scripts/peers-dogtag.sh           build what is missing
#   scripts/peers-dogtag.sh --where   print the directory of its root and stop
#
# Debian 11 is the last Debian that has Dogtag, and is out of support: its archive may be gone on any day. So this
# is apart from scripts/peers.sh, and nothing in .ci/run needs it (docs/adr/0033-judges-of-cmc.md). The root lands in
# ${HOLDFAST_CACHE:-${XDG_CACHE_HOME:-~/.cache}/holdfast}/dogtag, complete with a CA instance that was stopped cleanly.
# scripts/dogtag/serve.sh runs that instance on a copy of its data.
set -euo pipefail
title=dogtag
here=$(cd "$(dirname "$0")" && pwd)
. "$here/debian.sh"

suite=bullseye
packages=pki-ca,pki-tools,389-ds-base,openssl,procps
cache="${HOLDFAST_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/holdfast}"
root="$cache/dogtag"

if [ "${1:-}" = --where ]; then
    printf '%s\n' "$root"
    exit
fi
mkdir -p "$cache"
exec 9>"$cache/dogtag.lock"
flock 9
if ! [ -s "$root/holdfast/ready" ] || ! cmp -s "$here/dogtag/set-up.sh" "$root/holdfast/set-up.sh"; then
    [ "$(id -u)" -eq 0 ] || missing+=("root: the Debian 11 root is entered with chroot; run this script as root")
    need mmdebstrap mmdebstrap || true
    all_there
    began=$SECONDS building="$root.building.$$"
    trap 'rm -rf "$building"' EXIT
    rm -rf "$root".building.*
    say "building a Debian 11 root with $packages"
    new_debian "$building" "$packages" --aptopt='APT::Install-Recommends "false"'
    say "the root took $((SECONDS - began)) s; creating a CA in it"
    began=$SECONDS
    mkdir "$building/holdfast"
    cp "$here"/dogtag/{set-up.sh,run.sh} "$building/holdfast/"
    cp "$here/dogtag/systemctl" "$building/usr/local/bin/systemctl"
    # A network of its own: the ports of the set-up meet nobody's, and all that it started ends with it.
    unshare --net --uts --pid --fork --kill-child "$here/dogtag/enter.sh" "$building" /holdfast/set-up.sh >"$cache/dogtag.log" 2>&1 || {
        tail -n 40 "$cache/dogtag.log" >&2
        exit 1
    }
    say "the CA took $((SECONDS - began)) s"
    chroot "$building" dpkg-query -W -f '${Version}\n' pki-ca >"$building/holdfast/ready"
    rm -rf "$root"
    mv -T "$building" "$root"
fi
cp "$here/dogtag/run.sh" "$root/holdfast/run.sh"
printf 'dogtag\t%s\n' "$(cat "$root/holdfast/ready")"

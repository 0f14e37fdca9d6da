#!/usr/bin/env bash
# Installs the independent EST peers that judge us (docs/interop.md) and prints where they are.
#
#   scripts/peers.sh           install what is missing, then print the versions
#   scripts/peers.sh --where   print the cache directory and stop
#
# Everything lands outside the repository, in ${HOLDFAST_CACHE:-${XDG_CACHE_HOME:-~/.cache}/holdfast}/peers:
#   trixie/              a throw-away Debian 13 root: libest's estserver and estclient, strongSwan's pki
#   bin/estserver, bin/estclient   GlobalSign's, built from the Go module proxy
# Running it again costs next to nothing. Each part is built beside its place and renamed into it,
# so an interrupted run leaves no half of a peer behind.
set -euo pipefail

suite=trixie
packages=libest-utils,strongswan-pki,openssl
globalsign=github.com/globalsign/est
globalsign_version=v1.0.6

cache="${HOLDFAST_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/holdfast}/peers"
missing=()

say() { printf 'peers: %s\n' "$*" >&2; }

# need COMMAND PACKAGE: true if the command is there, after installing its package where we may.
need() {
    command -v "$1" >/dev/null && return
    if [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null; then
        say "installing $2"
        DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "$2" >&2 || true
        command -v "$1" >/dev/null && return
    fi
    missing+=("$2 (for $1)")
    return 1
}

# Where this host gets Debian from: its first plain Debian archive, so that a local mirror is honoured.
debian_mirror() {
    { command -v apt-get >/dev/null && apt-get indextargets --format '$(ORIGIN) $(REPO_URI)' 'Created-By: Packages'; } \
        2>/dev/null | awk '$1 == "Debian" && $2 !~ /security/ { sub(/\/$/, "", $2); print $2; exit }'
}

debian_root() {
    local root="$cache/$suite" building="$cache/$suite.building.$$" mirror keyring
    local -a options=(--variant=minbase "--include=$packages" --aptopt='APT::Install-Recommends "false"')
    [ -x "$root/usr/bin/estserver" ] && [ -x "$root/usr/bin/pki" ] && [ -s "$root/etc/hosts" ] && return
    if [ "$(id -u)" -ne 0 ]; then
        missing+=("root: the Debian 13 root of libest and strongSwan is entered with chroot; run this script as root")
        return
    fi
    need mmdebstrap mmdebstrap || return 0
    mirror=$(debian_mirror)
    keyring=/usr/share/keyrings/debian-archive-keyring.gpg
    if [ -r "$keyring" ]; then options+=("--keyring=$keyring"); fi
    say "building a Debian 13 root with $packages"
    rm -rf "$building"
    mmdebstrap "${options[@]}" "$suite" "$building" ${mirror:+"$mirror"} >&2
    printf '127.0.0.1 localhost\n' >"$building/etc/hosts" # the peers look the name up
    rm -rf "$root"
    mv -T "$building" "$root"
}

# A module of our own pins the version: `go install PACKAGE@VERSION` would ask the proxy for the list of
# all versions, which some proxies refuse.
globalsign_tools() {
    local building="$cache/bin.building.$$"
    [ -x "$cache/bin/estserver" ] && [ -x "$cache/bin/estclient" ] && return
    need go golang-go || return 0
    say "building GlobalSign's estserver and estclient $globalsign_version"
    rm -rf "$building"
    mkdir -p "$building/out" "$cache/bin"
    (
        cd "$building"
        go mod init holdfast.invalid/peers
        go mod edit "-require=$globalsign@$globalsign_version"
        go build -mod=mod -o out/ "$globalsign/cmd/estserver" "$globalsign/cmd/estclient"
    ) >&2
    mv "$building"/out/* "$cache/bin/"
    rm -rf "$building"
}

package_version() { chroot "$cache/$suite" dpkg-query -W -f '${Version}' "$1" 2>/dev/null; }

versions() {
    if [ "$(id -u)" -eq 0 ] && [ -x "$cache/$suite/usr/bin/estserver" ]; then
        printf 'libest\t%s\n' "$(package_version libest-utils)"
        printf 'strongswan\t%s\n' "$(package_version strongswan-pki)"
    fi
    if [ -x "$cache/bin/estserver" ]; then
        printf 'globalsign\t%s\n' "$globalsign_version"
    fi
}

if [ "${1:-}" = --where ]; then
    printf '%s\n' "$cache"
    exit
fi
mkdir -p "$cache"
exec 9>"$cache/lock"
flock 9 # a second run waits for the first and then finds its work done
trap 'rm -rf "$cache"/*.building.*' EXIT
debian_root
globalsign_tools
versions | tee "$cache/versions"
if [ "${#missing[@]}" -gt 0 ]; then
    printf 'peers: missing: %s\n' "${missing[@]}" >&2
    exit 1
fi

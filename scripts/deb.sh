#!/usr/bin/env bash
# Builds the Debian packages of this checkout, each release in a throw-away root of that release (make deb).
#
#   scripts/deb.sh [bookworm|trixie ...]   build and check by lintian (default: both), into build/deb/SUITE/
#   scripts/deb.sh --lock                  look anew at what the releases have, and at what PyPI has for the rest
#   scripts/deb.sh --fresh SUITE           print where a machine of that release is which never saw Holdfast
#
#   DEB_REVISION=.2        appended to the version: a later build of the same sources
#   DEB_OUT=DIR            where to put the packages
#   DEB_LINTIAN=no         leave the judge out
#   HOLDFAST_CACHE=DIR     where roots and wheels are kept (default: ${XDG_CACHE_HOME:-~/.cache}/holdfast)
#
# What a release lacks comes as wheels from PyPI, in the versions and with the hashes of debian/vendored/SUITE.txt.
# Nothing inside the roots has a network.
set -euo pipefail
cd "$(dirname "$0")/.."
title=deb # for debian.sh
. scripts/debian.sh

home="${HOLDFAST_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/holdfast}/deb"
# What Holdfast's packages may want from their release, for machines without a network.
wanted=(python3 tpm-udev libtss2-dev)

# builder: a root of $suite with what builds packages.
builder() {
    local root="$home/$suite/builder" builder_packages=debhelper,dpkg-dev,lintian,python3,python3-pip
    if grep -q == "debian/vendored/$suite/source.txt"; then
        builder_packages+=,gcc,libc6-dev,libtss2-dev,pkg-config,python3-dev
    fi
    [ "$(cat "$root/holds" 2>/dev/null)" = "$builder_packages" ] && return
    say "building a root of $suite that builds packages, a minute; it is kept in $root"
    rm -rf "$root"
    new_debian "$root.building.$$" "$builder_packages" --aptopt='APT::Install-Recommends "false"'
    printf '127.0.0.1 localhost\n' >"$root.building.$$/etc/hosts"
    rm -rf "$root.building.$$"/var/cache/apt/archives/*.deb
    printf '%s\n' "$builder_packages" >"$root.building.$$/holds"
    mv -T "$root.building.$$" "$root"
}

# fresh: a small $suite with a systemd and nothing of Python, and beside it, in pool/, what Holdfast may ask for.
fresh() {
    local root="$home/$suite/fresh" pool="$home/$suite/pool" names
    mapfile -t names < <(from_debian)
    [ "$(cat "$root/holds" 2>/dev/null)" = "${wanted[*]} ${names[*]}" ] && return
    say "building a fresh machine of $suite; it is kept in $root"
    rm -rf "$root" "$pool"
    mkdir -p "$pool"
    # shellcheck disable=SC2016 # the hook expands its variables
    new_debian "$root.building.$$" systemd,systemd-sysv,dbus,passwd,procps,iproute2 \
        --aptopt='APT::Install-Recommends "false"' \
        --customize-hook='APT_CONFIG=$MMDEBSTRAP_APT_CONFIG apt-get -y -qq --download-only install '"${wanted[*]} ${names[*]}" \
        --customize-hook='mv "$1"/var/cache/apt/archives/*.deb '"$(printf %q "$pool")" \
        --skip=cleanup/apt
    rm -rf "$root.building.$$"/var/lib/apt/lists/* "$root.building.$$"/var/cache/apt/*.bin \
        "$root.building.$$/etc/machine-id"
    printf '127.0.0.1 localhost\n::1 localhost\n' >"$root.building.$$/etc/hosts"
    printf '%s\n' "${wanted[*]} ${names[*]}" >"$root.building.$$/holds"
    mv -T "$root.building.$$" "$root"
}

# The packages, without versions, that the release itself gives.
from_debian() { sed -n 's/^# debian: \([a-z0-9.+-]*\).*/\1/p' "debian/vendored/$suite"/*.txt; }

python_version() { chroot "$home/$suite/builder" python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])'; }

# candidates: "package version" of all Python packages of $suite.
candidates() {
    local place mirror
    place=$(mktemp -d)
    mirror=$(debian_mirror)
    mkdir -p "$place/lists/partial" "$place/cache"
    printf 'deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] %s %s main\n' \
        "${mirror:-https://deb.debian.org/debian}" "$suite" >"$place/sources.list"
    local -a apt=(-o "Dir::Etc::sourcelist=$place/sources.list" -o Dir::Etc::sourceparts=- -o "Dir::State::lists=$place/lists"
        -o Dir::State::status=/dev/null -o "Dir::Cache=$place/cache" -o APT::Sandbox::User=root)
    apt-get "${apt[@]}" update -qq >&2
    apt-cache "${apt[@]}" dumpavail | awk '$1 == "Package:" { name = $2 } $1 == "Version:" && name ~ /^python3-/ { print name, $2 }'
    rm -rf "$place"
}

lock() {
    candidates >"$home/$suite/candidates"
    .venv/bin/python scripts/vendored.py "$suite" "$(python_version)" "debian/vendored/$suite" <"$home/$suite/candidates"
    say "wrote debian/vendored/$suite"
}

# fetch GROUP [source]: what a group of the lock names, checked by its hashes, in $home/$suite/GROUP.
fetch() {
    local lock="debian/vendored/$suite/$1.txt" place="$home/$suite/$1" minor
    local -a options=(--no-binary=:all:)
    cmp -s "$lock" "$place/lock" && return
    if [ "${2:-}" != source ]; then
        options=(--only-binary=:all: "--python-version=$(python_version)" "--platform=manylinux2014_$machine")
        for minor in 35 34 31 28 27 24 17; do options+=("--platform=manylinux_2_${minor}_$machine"); done
    fi
    rm -rf "$place" "$place.building"
    mkdir -p "$place.building"
    if grep -q '^[^#]*==' "$lock"; then
        say "fetching $1 for $suite"
        .venv/bin/python -m pip download --quiet --no-deps --require-hashes --dest "$place.building" -r "$lock" \
            "${options[@]}" >&2
    fi
    cp "$lock" "$place.building/lock"
    mv -T "$place.building" "$place"
}

# inside COMMAND...: in the root of $suite, with this copy of the sources in /build and no network.
inside() { unshare --net chroot "$home/$suite/builder" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 HOME=/root "$@"; }

# compile: the wheels of what PyPI has as source only, against the libraries of $suite, in $home/$suite/compiled.
compile() {
    local place="$home/$suite/compiled" work="$home/$suite/builder/compile"
    cmp -s "$home/$suite/source/lock" "$place/lock" && return
    rm -rf "$place" "$work"
    mkdir -p "$work/out"
    if compgen -G "$home/$suite/source/*.tar.gz" >/dev/null; then
        say "compiling for $suite, about a minute"
        cp "$home/$suite"/source/*.tar.gz "$home/$suite"/build/*.whl "$home/$suite"/agent/*.whl "$work/"
        inside sh -c 'cd /compile && python3 -m pip wheel -q --no-index --find-links . --no-deps --wheel-dir out *.tar.gz' >&2
    fi
    cp "$home/$suite/source/lock" "$work/out/lock"
    mv -T "$work/out" "$place"
    rm -rf "$work"
}

# build: the packages of $suite.
build() {
    local work="$home/$suite/builder/build/holdfast" out version release
    out="${DEB_OUT:-build/deb}/$suite"
    case $suite in bookworm) release=12 ;; trixie) release=13 ;; esac
    rm -rf "$home/$suite/builder/build" "$out"
    mkdir -p "$work" "$out"
    git ls-files --cached --others --exclude-standard -z | xargs -0 --no-run-if-empty ls -d 2>/dev/null |
        tar --create --files-from=- | tar --extract --directory="$work"
    mkdir -p "$work/debian/wheels"/{agent,servers,build}
    cp "$home/$suite"/agent/*.whl "$work/debian/wheels/agent/"
    if compgen -G "$home/$suite/compiled/*.whl" >/dev/null; then cp "$home/$suite"/compiled/*.whl "$work/debian/wheels/agent/"; fi
    if compgen -G "$home/$suite/servers/*.whl" >/dev/null; then cp "$home/$suite"/servers/*.whl "$work/debian/wheels/servers/"; fi
    cp "$home/$suite"/build/*.whl "$work/debian/wheels/build/"
    # A release's own package of the same version would be the newer one; so is the package for the next release.
    version="$(sed -n '1s/.*(\(.*\)).*/\1/p' debian/changelog)~deb$release${DEB_REVISION:-}"
    sed -i "1s/(.*) [a-z]*;/($version) $suite;/" "$work/debian/changelog"
    say "building $version"
    inside sh -c 'cd /build/holdfast && dpkg-buildpackage -d -b -us -uc >/build/log 2>&1' ||
        { tail -40 "$home/$suite/builder/build/log" >&2; return 1; }
    if [ "${DEB_LINTIAN:-}" != no ]; then
        inside sh -c 'cd /build && lintian --fail-on error,warning --tag-display-limit 0 --allow-root *.changes' >&2
    fi
    cp "$home/$suite"/builder/build/*.{deb,changes,buildinfo} "$out/"
    rm -rf "$home/$suite/builder/build"
    (cd "$out" && printf '%s\n' "$PWD"/*.deb)
}

if [ "$(id -u)" -ne 0 ]; then
    say "the roots are entered with chroot: run this script as root"
    exit 1
fi
machine=$(uname -m)
mkdir -p "$home"
trap 'rm -rf "$home/$suite"/*.building*' EXIT
need mmdebstrap mmdebstrap || true
all_there

# begin SUITE: from here on it is the one; a second run waits for the first and then finds its work done.
begin() {
    suite=$1
    mkdir -p "$home/$suite"
    exec 9>"$home/$suite/lock"
    flock 9
}

case "${1:-}" in
--lock)
    for name in bookworm trixie; do
        begin "$name"
        builder
        lock
    done
    ;;
--fresh)
    begin "$2"
    fresh
    printf '%s\n' "$home/$suite"
    ;;
*)
    [ $# -gt 0 ] || set -- bookworm trixie
    for name in "$@"; do
        begin "$name"
        builder
        for group in agent servers build; do fetch "$group"; done
        fetch source source
        compile
        build
    done
    ;;
esac

#!/usr/bin/env bash
# Installs the independent peers that judge us (docs/interop.md) and prints where they are.
#
#   scripts/peers.sh           install what is missing, then print the versions
#   scripts/peers.sh --where   print the cache directory and stop
#
# Everything lands outside the repository, in ${HOLDFAST_CACHE:-${XDG_CACHE_HOME:-~/.cache}/holdfast}/peers:
#   trixie/              a throw-away Debian 13 root: libest's estserver and estclient, strongSwan's pki
#   trixie-token/        another one: OpenSSL's PKCS#11 provider, SoftHSM2 and curl
#   trixie-unit/         a unit on the factory line: OpenSSH's server and Python, nothing of ours
#   bin/estserver, bin/estclient   GlobalSign's, built from the Go module proxy
#   bin/scepserver, bin/scepclient, bin/scepserver-des   micromdm's SCEP, and one that answers with single DES
#   bin/step-ca   Smallstep's CA, for SCEP and ACME
#   bin/pebble    Let's Encrypt's test server for ACME; BIND and lego come from this host's Debian
#   cmp-ra/              Siemens' CmpRaComponent from Maven Central, with a small server of ours around it
#   cmc-bc/              BouncyCastle from Maven Central, with a small CMC server and client of ours made of it
# Dogtag is apart: scripts/peers-dogtag.sh.
# Running it again costs next to nothing. Each part is built beside its place and renamed into it,
# so an interrupted run leaves no half of a peer behind.
set -euo pipefail
title=peers
. "$(dirname "$0")/debian.sh"

packages=libest-utils,strongswan-pki,libstrongswan-extra-plugins,openssl
token_packages=pkcs11-provider,softhsm2,openssl,curl
unit_packages=openssh-server,python3
globalsign=github.com/globalsign/est
globalsign_version=v1.0.6
micromdm=github.com/micromdm/scep/v2
micromdm_version=v2.3.0
micromdm_des_version=v2.1.0 # as it comes: like every version of it, it answers with single DES
smallstep=github.com/smallstep/certificates
smallstep_version=v0.30.2
pebble=github.com/letsencrypt/pebble/v2
pebble_version=v2.8.0
cmp_ra_version=4.1.4
bouncycastle_version=1.87

cache="${HOLDFAST_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/holdfast}/peers"

# new_root NAME PACKAGES: a Debian 13 root with the packages, in the cache under that name.
new_root() {
    local root="$cache/$1" building="$cache/$1.building.$$" mirror keyring
    local -a options=(--variant=minbase "--include=$2" --aptopt='APT::Install-Recommends "false"')
    if [ "$(id -u)" -ne 0 ]; then
        missing+=("root: the Debian 13 root with $2 is entered with chroot; run this script as root")
        return
    fi
    need mmdebstrap mmdebstrap || return 0
    say "building a Debian 13 root with $2"
    rm -rf "$building"
    new_debian "$building" "$2"
    printf '127.0.0.1 localhost\n' >"$building/etc/hosts" # the peers look the name up
    rm -rf "$root"
    mv -T "$building" "$root"
}

debian_root() {
    local root="$cache/$suite"
    [ -x "$root/usr/bin/estserver" ] && [ -x "$root/usr/bin/pki" ] && [ -s "$root/etc/hosts" ] &&
        [ -f "$root/usr/lib/ipsec/plugins/libstrongswan-curl.so" ] && return
    new_root "$suite" "$packages"
}

# The users of keys on a token: another root, so that they and the enrollment peers can change apart.
token_root() {
    compgen -G "$cache/$suite-token/usr/lib/*/ossl-modules/pkcs11.so" >/dev/null && return
    new_root "$suite-token" "$token_packages"
}

# A unit on the line, which a station reaches by SSH. An SSH server has no business on the host itself.
unit_root() {
    [ -x "$cache/$suite-unit/usr/sbin/sshd" ] && [ -x "$cache/$suite-unit/usr/bin/python3" ] && return
    new_root "$suite-unit" "$unit_packages"
}

# go_build MODULE VERSION PACKAGE...: builds into $built. A module of our own pins the version:
# `go install PACKAGE@VERSION` would ask the proxy for the list of all versions, which some proxies refuse.
go_build() {
    local module=$1 version=$2
    shift 2
    building="$cache/bin.building.$$"
    built="$building/out"
    say "building $* $version"
    rm -rf "$building"
    mkdir -p "$built" "$cache/bin"
    (
        cd "$building"
        go mod init holdfast.invalid/peers
        go mod edit "-require=$module@$version"
        go build -mod=mod -ldflags '-s -w' -o out/ "${@/#/$module/cmd/}"
    ) >&2
}

globalsign_tools() {
    [ -x "$cache/bin/estserver" ] && [ -x "$cache/bin/estclient" ] && return
    need go golang-go || return 0
    go_build "$globalsign" "$globalsign_version" estserver estclient
    mv "$built"/* "$cache/bin/"
    rm -rf "$building"
}

# The programs have no option for their cipher; their library has a variable, which one more source file sets.
micromdm_tools() {
    if [ ! -x "$cache/bin/scepserver" ] || [ ! -x "$cache/bin/scepclient" ]; then
        need go golang-go || return 0
        CGO_ENABLED=0 go_build "$micromdm" "$micromdm_version" scepserver scepclient
        (
            cd "$building"
            commands="$(go list -mod=mod -m -f '{{.Dir}}' "$micromdm")/cmd"
            for program in scepserver scepclient; do
                cp -r "$commands/$program" .
                chmod -R u+w "$program"
                printf '%s\n' 'package main' 'import "github.com/smallstep/pkcs7"' \
                    'func init() { pkcs7.ContentEncryptionAlgorithm = pkcs7.EncryptionAlgorithmAES128CBC }' \
                    >"$program/aes.go"
                CGO_ENABLED=0 go build -mod=mod -ldflags '-s -w' -o out/ "./$program"
            done
        ) >&2
        mv "$built"/* "$cache/bin/"
    fi
    if [ ! -x "$cache/bin/scepserver-des" ]; then
        need go golang-go || return 0
        CGO_ENABLED=0 go_build "$micromdm" "$micromdm_des_version" scepserver
        mv "$built/scepserver" "$cache/bin/scepserver-des"
    fi
    rm -rf "$cache/bin.building.$$"
}

step_ca() {
    [ -x "$cache/bin/step-ca" ] && return
    need go golang-go || return 0
    CGO_ENABLED=0 go_build "$smallstep" "$smallstep_version" step-ca
    mv "$built"/* "$cache/bin/"
    rm -rf "$building"
}

pebble_server() {
    [ -x "$cache/bin/pebble" ] && return
    need go golang-go || return 0
    go_build "$pebble" "$pebble_version" pebble
    mv "$built"/* "$cache/bin/"
    rm -rf "$building"
}

# jars DIRECTORY GROUP ARTIFACT VERSION: the artifact and what it needs, from Maven Central.
jars() {
    need mvn maven || return 1
    say "fetching $3 $4"
    cat >"$1/pom.xml" <<POM
<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>
<groupId>holdfast.invalid</groupId><artifactId>peers</artifactId><version>1</version>
<dependencies><dependency><groupId>$2</groupId><artifactId>$3</artifactId>
<version>$4</version></dependency></dependencies></project>
POM
    mvn -q -B -f "$1/pom.xml" dependency:copy-dependencies "-DoutputDirectory=$1/lib" >&2
}

# Siemens' CmpRaComponent and what it needs, and our small server around it (tests/interop/CmpRa.java).
cmp_ra() {
    local building="$cache/cmp-ra.building.$$" source
    source="$(dirname "$0")/../tests/interop/CmpRa.java"
    [ -s "$cache/cmp-ra/CmpRa.class" ] && cmp -s "$source" "$cache/cmp-ra/CmpRa.java" && return
    need javac default-jdk-headless || return 0
    rm -rf "$building"
    mkdir -p "$building"
    if [ -d "$cache/cmp-ra/lib" ]; then
        cp -r "$cache/cmp-ra/lib" "$building/lib"
    else
        jars "$building" com.siemens.pki CmpRaComponent "$cmp_ra_version" || return 0
    fi
    javac -nowarn -cp "$building/lib/*" -d "$building" "$source" >&2
    cp "$source" "$building/CmpRa.java"
    rm -rf "$cache/cmp-ra"
    mv -T "$building" "$cache/cmp-ra"
}

# BouncyCastle, and our CMC server and client made of it (tests/interop/cmc_bc).
cmc_bc() {
    local place="$cache/cmc-bc" building="$cache/cmc-bc.building.$$" source
    source="$(dirname "$0")/../tests/interop/cmc_bc"
    [ -s "$place/CmcServer.class" ] && [ -s "$place/lib/bcpkix-jdk18on-$bouncycastle_version.jar" ] &&
        diff -rq "$source" "$place/source" >/dev/null && return
    need javac default-jdk-headless || return 0
    rm -rf "$building"
    mkdir -p "$building"
    if [ -s "$place/lib/bcpkix-jdk18on-$bouncycastle_version.jar" ]; then
        cp -r "$place/lib" "$building/lib"
    else
        jars "$building" org.bouncycastle bcpkix-jdk18on "$bouncycastle_version" || return 0
    fi
    javac -nowarn -cp "$building/lib/*" -d "$building" "$source"/*.java >&2
    cp -r "$source" "$building/source"
    rm -rf "$place"
    mv -T "$building" "$place"
}

package_version() { chroot "$cache/$suite" dpkg-query -W -f '${Version}' "$1" 2>/dev/null; }

versions() {
    local name
    if [ "$(id -u)" -eq 0 ] && [ -x "$cache/$suite/usr/bin/estserver" ]; then
        printf 'libest\t%s\n' "$(package_version libest-utils)"
        printf 'strongswan\t%s\n' "$(package_version strongswan-pki)"
    fi
    if [ "$(id -u)" -eq 0 ] && [ -d "$cache/$suite-token" ]; then
        for name in pkcs11-provider softhsm2 curl; do
            printf '%s\t%s\n' "$name" "$(chroot "$cache/$suite-token" dpkg-query -W -f '${Version}' "$name")"
        done
    fi
    if [ "$(id -u)" -eq 0 ] && [ -x "$cache/$suite-unit/usr/sbin/sshd" ]; then
        printf 'openssh\t%s\n' "$(chroot "$cache/$suite-unit" dpkg-query -W -f '${Version}' openssh-server)"
    fi
    if [ -x "$cache/bin/estserver" ]; then
        printf 'globalsign\t%s\n' "$globalsign_version"
    fi
    if [ -x "$cache/bin/scepserver" ]; then
        printf 'micromdm-scep\t%s\n' "$micromdm_version"
    fi
    if [ -x "$cache/bin/scepserver-des" ]; then
        printf 'micromdm-scep-des\t%s\n' "$micromdm_des_version"
    fi
    if [ -x "$cache/bin/step-ca" ]; then
        printf 'step-ca\t%s\n' "$smallstep_version"
    fi
    if [ -x "$cache/bin/pebble" ]; then
        printf 'pebble\t%s\n' "$pebble_version"
    fi
    for name in bind9 lego chromium; do
        if [ "$(dpkg-query -W -f '${db:Status-Status}' "$name" 2>/dev/null)" = installed ]; then
            printf '%s\t%s\n' "$name" "$(dpkg-query -W -f '${Version}' "$name")"
        fi
    done
    if [ -s "$cache/cmp-ra/CmpRa.class" ]; then
        printf 'siemens-cmp-ra\t%s\n' "$cmp_ra_version"
    fi
    if [ -s "$cache/cmc-bc/CmcServer.class" ]; then
        printf 'bouncycastle\t%s\n' "$bouncycastle_version"
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
token_root
unit_root
globalsign_tools
micromdm_tools
step_ca
pebble_server
PATH="$PATH:/usr/sbin" need named bind9 || true
need nsupdate bind9-dnsutils || true
need lego lego || true
need chromium chromium || true
need chromedriver chromium-driver || true
cmp_ra
cmc_bc
versions | tee "$cache/versions"
all_there

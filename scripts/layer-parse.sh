#!/usr/bin/env bash
# Has the real bitbake parse the Yocto layer and resolve an image, without a network (make layer-parse). It cannot run in CI,
# which reaches no such repositories; check them out yourself and say where:
#
#   YOCTO=DIR      holds bitbake, openembedded-core, meta-openembedded and meta-security, all of one series
#   SERIES=NAME    scarthgap or wrynose (the default)
#   TARGET=NAME    what to resolve (default: holdfast-test-image)
#
# The build directory is kept in ${HOLDFAST_CACHE:-~/.cache/holdfast}/layer-parse/SERIES: a second run is quick.
set -euo pipefail
layer=$(readlink -f "$(dirname "$0")/../yocto/meta-holdfast")
series=${SERIES:-wrynose}
: "${YOCTO:?say where the checkouts are: YOCTO=DIR}"
yocto=$(readlink -f "$YOCTO")
build="${BUILD:-${HOLDFAST_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/holdfast}/layer-parse/$series}"
if [ "$(id -u)" -eq 0 ]; then
    printf 'layer-parse: bitbake refuses to run as root; be an ordinary user\n' >&2
    exit 1
fi
mkdir -p "$build/conf"

# write FILE: from standard input, only if it changed: bitbake parses everything again otherwise.
write() {
    cat >"$1.new"
    if cmp -s "$1.new" "$1"; then rm "$1.new"; else mv "$1.new" "$1"; fi
}

write "$build/conf/bblayers.conf" <<EOF
BBPATH = "\${TOPDIR}"
BBFILES ?= ""
BBLAYERS ?= "$yocto/openembedded-core/meta $yocto/meta-openembedded/meta-oe $yocto/meta-openembedded/meta-python $yocto/meta-security/meta-tpm $layer"
EOF
write "$build/conf/local.conf" <<EOF
MACHINE ?= "qemux86-64"
DISTRO ?= "nodistro"
INIT_MANAGER = "systemd"
DISTRO_FEATURES:append = " ptest tpm tpm2"
BB_NO_NETWORK = "1"
CONNECTIVITY_CHECK_URIS = ""
BB_NUMBER_THREADS = "2"
BB_HASHSERVE = ""
BB_SIGNATURE_HANDLER = "OEBasicHash"
SKIP_META_TPM_SANITY_CHECK = "1"
require conf/include/holdfast-$series.inc
EOF
export PATH="$yocto/bitbake/bin:$yocto/openembedded-core/scripts:$PATH" BBPATH="$build" BUILDDIR="$build"
cd "$build"
bitbake --graphviz "${TARGET:-holdfast-test-image}"
printf 'layer-parse: %s takes %s recipes of %s\n' "${TARGET:-holdfast-test-image}" "$(wc -l <pn-buildlist)" "$series"

#!/usr/bin/env bash
# Installs the Debian packages named as arguments that are missing: as root, or by sudo where it asks for no
# password. Otherwise it prints what to install and stops. "a|b" means: whichever of the two this
# Debian has. Nothing missing costs one dpkg-query.
set -euo pipefail
exec >&2

installed() { [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]; }
available() { apt-cache show --no-all-versions "$1" >/dev/null 2>&1; }

# missing WORD...: what is not installed; alternatives stay as they are until apt knows its packages.
missing() {
    local word name
    for word in "$@"; do
        for name in ${word//|/ }; do installed "$name" && continue 2; done
        printf '%s\n' "$word"
    done
}

choose() {
    local name
    for name in ${1//|/ }; do
        if available "$name"; then printf '%s\n' "$name"; return; fi
    done
    printf '%s\n' "${1%%|*}"
}

if ! command -v dpkg-query >/dev/null; then
    printf 'setup: this is not Debian. Install what these Debian packages hold, then run make again:\n  %s\n' "$*"
    printf 'setup: going on in the hope that it is done.\n'
    exit 0
fi

mapfile -t wanted < <(missing "$@")
[ "${#wanted[@]}" -gt 0 ] || exit 0

if [ "$(id -u)" -eq 0 ]; then
    as_root=()
elif command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
    as_root=(sudo -n)
else
    mapfile -t names < <(for word in "${wanted[@]}"; do choose "$word"; done)
    printf 'setup: these packages are missing, and only root can install them:\n\n'
    printf '  sudo apt-get install --no-install-recommends %s\n\n' "${names[*]}"
    printf 'setup: run that, then make again.\n'
    exit 1
fi

wait_for_turn=(-o DPkg::Lock::Timeout=300) # something else may be installing
"${as_root[@]}" apt-get update -qq
mapfile -t names < <(for word in "${wanted[@]}"; do choose "$word"; done)
printf 'setup: installing %s\n' "${names[*]}"
"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${wait_for_turn[@]}" "${names[@]}" >/dev/null

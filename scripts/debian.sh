# Sourced by peers.sh and machine.sh, which set `title` (who speaks): packages of this host, and Debian 13 roots.
# shellcheck shell=bash

suite=trixie
missing=()

say() { printf '%s: %s\n' "$title" "$*" >&2; }

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

# new_debian DIRECTORY PACKAGES [OPTION...]: a small Debian 13 with the packages. mmdebstrap must be there (need).
new_debian() {
    local directory=$1 packages=$2 mirror keyring=/usr/share/keyrings/debian-archive-keyring.gpg
    local -a options=(--variant=minbase "--include=$packages" "${@:3}")
    if [ -r "$keyring" ]; then options+=("--keyring=$keyring"); fi
    mirror=$(debian_mirror)
    mmdebstrap "${options[@]}" "$suite" "$directory" ${mirror:+"$mirror"} >&2
}

# Ends the script if something could not be had.
all_there() {
    [ "${#missing[@]}" -eq 0 ] && return
    printf "$title: missing: %s\n" "${missing[@]}" >&2
    exit 1
}

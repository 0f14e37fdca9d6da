#!/usr/bin/env bash
# Puts the units and what belongs to them below DESTDIR (default: this host). Programs are expected in /usr/bin;
# holdfast and holdfastd of a virtual environment can be linked there:
#   systemd/install.sh [--link /opt/holdfast/bin] [DESTDIR]
# Afterwards, on a running host: systemd-sysusers; systemd-tmpfiles --create; journalctl --update-catalog;
# systemctl daemon-reload; systemctl enable --now holdfast.service
set -euo pipefail
here=$(dirname "$(readlink -f "$0")")
programs=
if [ "${1:-}" = --link ]; then
    programs=$2
    shift 2
fi
root=${1:-}
lib="$root/usr/lib"

install -d "$lib/systemd/system" "$lib/systemd/system-preset" "$lib/systemd/catalog" "$lib/sysusers.d" \
    "$lib/tmpfiles.d" "$root/usr/share/doc/holdfast/examples" "$root/etc/holdfast" "$root/usr/bin"
install -m 644 "$here"/*.service "$here"/*.socket "$here"/*.timer "$here"/*.path "$here"/*.target "$lib/systemd/system/"
install -m 644 "$here/preset.conf" "$lib/systemd/system-preset/50-holdfast.preset"
install -m 644 "$here/holdfast.catalog" "$lib/systemd/catalog/"
install -m 644 "$here/sysusers.conf" "$lib/sysusers.d/holdfast.conf"
install -m 644 "$here/tmpfiles.conf" "$lib/tmpfiles.d/holdfast.conf"
install -m 644 "$here"/examples/*.conf "$root/usr/share/doc/holdfast/examples/"
install -m 644 "$here/../docs/service.md" "$root/usr/share/doc/holdfast/"
if [ -n "$programs" ]; then
    ln -sf "$programs/holdfast" "$programs/holdfastd" "$root/usr/bin/"
fi

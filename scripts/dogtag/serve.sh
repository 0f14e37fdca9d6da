#!/usr/bin/env bash
# serve.sh ROOT LDAP HTTP HTTPS AJP SHUTDOWN: Dogtag CA on these ports of 127.0.0.1, until it is told to end.
# It works on a copy of its data in memory, so that each run begins with the CA as it was set up.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
if [ "${SERVING:-}" != yes ]; then
    SERVING=yes exec unshare --mount --propagation private --uts --pid --fork --kill-child "$0" "$@"
fi
root=$1
shift
mount -t tmpfs tmpfs "$root/mnt"
for part in etc var; do
    cp -a "$root/$part" "$root/mnt/$part"
    mount --bind "$root/mnt/$part" "$root/$part"
done
exec "$here/enter.sh" "$root" /holdfast/run.sh all "$@"

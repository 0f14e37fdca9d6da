#!/usr/bin/env bash
# enter.sh ROOT COMMAND...: runs a command in the root, in a view of the file system of its own, with a clean environment.
# (REQUESTS_CA_BUNDLE and its like would reach into the root and change whom its programs trust.)
set -euo pipefail
if [ "${ENTERED:-}" != yes ]; then
    ENTERED=yes exec unshare --mount --propagation private "$0" "$@"
fi
root=$1
shift
mount --rbind "$root" "$root"
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
for volatile in tmp run; do mount -t tmpfs -o mode=1777 tmpfs "$root/$volatile"; done
exec env -i PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8 \
    "$(command -v chroot)" "$root" "$@"

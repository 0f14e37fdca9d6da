#!/usr/bin/env bash
# Builds the virtual gateway's Debian: what make machine-test boots in QEMU, before Holdfast is put into it. Prints
# the directory that holds it and nothing else on standard output.
#
# Everything lands outside the repository, in ${HOLDFAST_CACHE:-${XDG_CACHE_HOME:-~/.cache}/holdfast}/guest/KEY, where
# KEY is made from all that goes in:
#   vmlinuz   the distribution's kernel for virtual machines
#   initrd.gz the modules that its disk needs, and nothing else
#   root/     its modules, systemd, mosquitto, and /opt/holdfast, a virtual environment with what Holdfast
#             imports, but not Holdfast
# The guest is Debian 13: the tpm2-openssl of Debian 12 can sign, but then verifies no client.
set -euo pipefail
cd "$(dirname "$0")/.."
title=guest
. scripts/debian.sh
# QEMU and a TPM for it (swtpm comes with make setup); what builds the guest. Programs of the guest, apart from
# its system: tpm2-openssl for mosquitto, tpm2-tools and openssl to look past the agent.
host_packages=(qemu-system-x86 mmdebstrap e2fsprogs kmod cpio xz-utils debian-archive-keyring)
packages=systemd,systemd-sysv,dbus,udev,kmod,tpm-udev,iproute2,ca-certificates,python3,python3-venv
packages+=,python3-tpm2-pytss,libtss2-tcti-device0t64,tpm2-tools,tpm2-openssl,openssl,mosquitto,busybox-static
modules=(virtio_pci virtio_blk virtio_net virtio_console virtio_rng sch_netem sch_ingress ifb act_mirred cls_matchall)

requirements() {
    .venv/bin/python -c 'import tomllib
print("\n".join(tomllib.load(open("pyproject.toml", "rb"))["project"]["dependencies"]))'
}

install_kernel() {
    local building=$1 version
    mmdebstrap --quiet --variant=extract --include=linux-image-cloud-amd64 "$suite" "$building/kernel" \
        "$(debian_mirror)" >&2
    [ -e "$building/kernel/lib" ] || ln -s usr/lib "$building/kernel/lib"
    version=$(ls "$building/kernel/lib/modules")
    cp "$building/kernel/boot/vmlinuz-$version" "$building/vmlinuz"
    depmod -b "$building/kernel" "$version"
    for module in "${modules[@]}"; do
        modprobe -d "$building/kernel" -S "$version" --show-depends "$module" | awk '$1 == "insmod" { print $2 }'
    done | sort -u | while read -r file; do
        install -D -m 644 "$file" "$building/root/usr/lib/modules/$version/${file#*"/$version/"}"
    done
    cp "$building/kernel/lib/modules/$version"/modules.{order,builtin,builtin.modinfo} \
        "$building/root/usr/lib/modules/$version/"
    depmod -b "$building/root" "$version"
    make_initrd "$building" "$version"
    rm -rf "$building/kernel"
}

# Virtual disks are modules of this kernel. The one that it has built in, NVMe, is no use: QEMU's does not say which
# writes must be on the medium before they are answered (FUA), and tests/machine/cache.py must know.
make_initrd() {
    local building=$1 version=$2 number=10
    mkdir -p "$building"/initrd/{bin,dev,modules,new}
    cp "$building/root/bin/busybox" "$building/initrd/bin/"
    modprobe -d "$building/root" -S "$version" -a --show-depends virtio_pci virtio_blk | awk '$1 == "insmod" { print $2 }' |
        while read -r file; do
            target="$building/initrd/modules/$number-$(basename "${file%.xz}")"
            case $file in *.xz) xz -dc "$file" >"$target" ;; *) cp "$file" "$target" ;; esac
            number=$((number + 1))
        done
    cat >"$building/initrd/init" <<'SH'
#!/bin/busybox sh
/bin/busybox mount -t devtmpfs dev /dev
for module in /modules/*; do /bin/busybox insmod "$module"; done 2>/dev/null
/bin/busybox mount -t ext4 /dev/vda /new
/bin/busybox mount --move /dev /new/dev
exec /bin/busybox switch_root /new /sbin/init
SH
    chmod +x "$building/initrd/init"
    (cd "$building/initrd" && find . | cpio --quiet -o -H newc | gzip) >"$building/initrd.gz"
    rm -rf "$building/initrd"
}

# As machine.sh does: tpm2-pytss is Debian's own, the rest comes as wheels.
install_requirements() {
    local root=$1 version
    version=$(chroot "$root" python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    mapfile -t wheels < <(requirements)
    .venv/bin/python -m pip download --quiet --only-binary=:all: --python-version "$version" \
        --platform "manylinux_2_28_$(uname -m)" --platform "manylinux_2_17_$(uname -m)" \
        --platform "manylinux2014_$(uname -m)" --dest "$root/opt/wheels" "${wheels[@]}" >&2
    chroot "$root" python3 -m venv --system-site-packages /opt/holdfast
    chroot "$root" /opt/holdfast/bin/python -m pip install --quiet --no-index --find-links /opt/wheels \
        --ignore-installed "${wheels[@]}" >&2
    rm -rf "$root/opt/wheels"
}

# A gateway has no package manager's lists, no manuals, and nothing that writes to the disk for its own sake.
slim() {
    local root=$1 unit
    rm -rf "$root"/usr/share/{doc,man,locale,info,i18n} "$root"/var/cache/apt "$root"/var/lib/apt/lists "$root"/var/log/*
    for unit in systemd-pcrphase{,-sysinit,-initrd}.service getty@tty1.service serial-getty@ttyS0.service \
        apt-daily{,-upgrade}.timer e2scrub_all.timer e2scrub_reap.service dpkg-db-backup.timer fstrim.timer \
        systemd-hwdb-update.service mosquitto.service; do
        ln -sf /dev/null "$root/etc/systemd/system/$unit"
    done
    rm "$root/etc/systemd/system/mosquitto.service" # is wanted later, by the identity
    rm -f "$root"/etc/systemd/system/multi-user.target.wants/mosquitto.service
    printf '127.0.0.1 localhost\n' >"$root/etc/hosts"
    : >"$root/etc/machine-id" # each gateway gets its own at its first boot
}

build() {
    local building=$1
    say "building a Debian guest ($suite), a minute or two; it is kept in $home"
    mkdir -p "$building"
    new_debian "$building/root" "$packages" --aptopt='APT::Install-Recommends "false"'
    install_kernel "$building"
    install_requirements "$building/root"
    slim "$building/root"
}

if [ "$(id -u)" -ne 0 ]; then
    say "a guest's files belong to its root: run this script as root"
    exit 1
fi
[ "$(uname -m)" = x86_64 ] || { say "the guest is built for x86-64 only"; exit 1; }
scripts/setup-packages.sh "${host_packages[@]}"
key=$({ cat scripts/guest.sh scripts/debian.sh; requirements; } | sha256sum | cut -c-16)
cache="${HOLDFAST_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/holdfast}/guest"
home="$cache/$key"
mkdir -p "$cache"
exec 9>"$cache/lock"
flock 9 # a second run waits for the first and then finds its work done
trap 'rm -rf "$cache"/building.*' EXIT
if [ ! -d "$home" ]; then
    build "$cache/building.$$"
    # Only the newest is kept: another state of the source that is tested at the same time builds its own again.
    find "$cache" -mindepth 1 -maxdepth 1 -type d ! -name "building.*" -mtime +7 -exec rm -rf {} +
    mv -T "$cache/building.$$" "$home"
fi
printf '%s\n' "$home"

#!/usr/bin/env bash
# Makes .venv with Holdfast and everything that it is developed and tested with. `make` calls it when
# pyproject.toml changed; running it again repairs. It writes to standard error only.
#
#   PYTHON=/path/to/python3   use this interpreter (3.11 or newer, its _ssl linked to the system's libssl)
#   HOLDFAST_CACHE=DIR        where built wheels are kept (default: ${XDG_CACHE_HOME:-~/.cache}/holdfast)
set -euo pipefail
exec >&2
cd "$(dirname "$0")/.."

# swtpm is the TPM of demo and tests; libtss2-dev, gcc and pkg-config build tpm2-pytss, which PyPI has as source
# only; softhsm2 and tpm2-pkcs11, with the resource manager that it needs, are the PKCS#11 tokens; the others are
# what tests judge our output with.
packages=(
    swtpm swtpm-tools 'libtss2-tcti-swtpm0t64|libtss2-tcti-swtpm0' libtss2-dev gcc libc6-dev pkg-config
    openssl gnutls-bin tpm2-tools curl strace iproute2 ca-certificates mandoc zsh fish
    softhsm2 opensc libengine-pkcs11-openssl postgresql
    libtpm2-pkcs11-1 libtpm2-pkcs11-tools tpm2-abrmd libtss2-tcti-tabrmd0 dbus-daemon
    zbar-tools openssh-client
)
python_packages=(python3-venv python3-dev)
cache="${HOLDFAST_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/holdfast}/wheels"

say() { printf 'setup: %s\n' "$*"; }
stop() { say "$*"; exit 1; }

# Two makes at once must not build one environment.
exec 9<.
flock 9

# unfit PYTHON: why it cannot be used, on standard output; nothing if it can.
unfit() {
    local said
    said=$("$1" - 2>&1 <<'PY'
import pathlib, sys, sysconfig
def refuse(reason): print(reason); raise SystemExit(1)
if sys.version_info < (3, 11): refuse(f"it is Python {sys.version.split()[0]}, 3.11 is the oldest that works")
try:
    import _ssl, ensurepip, venv
except ImportError as error:
    refuse(f"it lacks {error.name} (Debian: python3-venv)")
if "libssl" not in pathlib.Path("/proc/self/maps").read_text():
    refuse("its _ssl is not linked to a shared libssl, which TLS keys in hardware need")
if not (pathlib.Path(sysconfig.get_path("include")) / "Python.h").exists():
    refuse("it lacks Python.h (Debian: python3-dev)")
print("fits")
PY
    ) || true
    said=${said##*$'\n'} # a warning may come first
    [ "$said" = fits ] || printf '%s\n' "${said:-it is no Python}"
}

choose_python() {
    local candidate reason
    reasons=()
    for candidate in "$@"; do
        command -v "$candidate" >/dev/null || continue
        reason=$(unfit "$candidate")
        if [ -z "$reason" ]; then python=$(command -v "$candidate"); return; fi
        reasons+=("$candidate: $reason")
    done
    return 1
}

find_python() {
    if [ -n "${PYTHON:-}" ]; then
        choose_python "$PYTHON" || stop "PYTHON=$PYTHON cannot be used. ${reasons[*]:-It does not exist.}"
    elif ! choose_python python3 python3.13 python3.12 python3.11 /usr/bin/python3; then
        scripts/setup-packages.sh "${python_packages[@]}"
        choose_python /usr/bin/python3 || stop "no Python 3.11 or newer fits. ${reasons[*]:-There is none.}"
    fi
}

make_environment() {
    if [ -x .venv/bin/python ] && [ -z "$(unfit .venv/bin/python)" ]; then return; fi
    find_python
    say "making .venv with $python ($("$python" -V))"
    rm -rf .venv
    "$python" -m venv .venv
}

# tpm2-pytss takes about a minute to compile. The wheel fits one Python, one machine type and one libtss2.
install_tpm_bindings() {
    local requirement key home
    requirement=$(.venv/bin/python -c 'import tomllib
extras = tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]
print(next(r for r in extras["tpm"] if r.startswith("tpm2-pytss")))')
    if .venv/bin/python -c 'import tpm2_pytss' 2>/dev/null; then return; fi
    key=$(.venv/bin/python -c 'import sys, sysconfig
print(f"{sys.implementation.cache_tag}-{sysconfig.get_platform()}")')-tss$(pkg-config --modversion tss2-esys)
    home="$cache/$key"
    if ! compgen -G "$home/tpm2_pytss-*.whl" >/dev/null; then
        say "building $requirement once, about a minute; it is kept in $home"
        mkdir -p "$cache"
        rm -rf "$home.building"
        .venv/bin/python -m pip wheel --quiet --no-deps --wheel-dir "$home.building" "$requirement"
        rm -rf "$home"
        mv "$home.building" "$home"
    fi
    .venv/bin/python -m pip install --quiet --no-deps "$home"/tpm2_pytss-*.whl
}

scripts/setup-packages.sh "${packages[@]}"
make_environment
install_tpm_bindings
say "installing Holdfast and its tools into .venv"
.venv/bin/python -m pip install --quiet --editable '.[dev]'
touch .venv/.ready
say "done"

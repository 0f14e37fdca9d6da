SUMMARY = "Cryptographic recipes and primitives for Python"
DESCRIPTION = "X.509, signatures, key derivation and ciphers, on top of OpenSSL."
HOMEPAGE = "https://cryptography.io/"
SECTION = "devel/python"
LICENSE = "Apache-2.0 | BSD-3-Clause"
LIC_FILES_CHKSUM = " \
    file://LICENSE;md5=8c3617db4fb6fae01f1d253ab91511e4 \
    file://LICENSE.APACHE;md5=4e168cce331e5c827d4c2b68a6200e1b \
    file://LICENSE.BSD;md5=5ae30ba4123bc4f2fa49aa0b0dce887b \
"

DEPENDS = "openssl python3-cffi-native"

require python3-cryptography-crates.inc

SRC_URI[sha256sum] = "4b1654dfc64ea479c242508eb8c724044f1e964a47d1d1cacc5132292d851971"

inherit cargo-update-recipe-crates pkgconfig pypi python_maturin

# Newer than the series: only for who asks (conf/include/holdfast-scarthgap.inc).
DEFAULT_PREFERENCE = "-1"

# maturin of the series is older than the sources ask for: it knows no licence expressions, and wants the oldest Python
# named for which an abi3 module is built.
do_configure:prepend() {
    sed -i -e 's/^license = "\(.*\)"/license = {text = "\1"}/' -e '/^license-files = /d' ${S}/pyproject.toml
    sed -i 's/features = \["abi3"\]/features = ["abi3-py38"]/' ${S}/Cargo.toml
}
PEP517_BUILD_OPTS = "--skip-dependency-check"

RDEPENDS:${PN} += "python3-cffi"
RDEPENDS:${PN}:append:class-target = " \
    python3-numbers \
    python3-threading \
"

BBCLASSEXTEND = "native nativesdk"
